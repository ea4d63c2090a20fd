"""TensorFlow's recipe for training from scratch, shortened to one night on one GPU.

The training has 120 epochs over the 117,266 images of train2017 that hold objects. A batch has
1 GPU x 128 images, so an epoch has 916 iterations and the training 109,920. It sees 14.1 million
images, 7 % of the 205 million of coco_tf_400k, so expect a lower AP. The learning rate is 0.1 for a
batch of 128. All other settings are those of coco_tf_400k.

On 2 cores of an AMD EPYC (Zen 3), an iteration of 8 images took 1.0 s without data loading. The
training would take 20 days there. Its cost on a GPU is estimated, not measured: 8 hours if the GPU
trains on 500 images per second. One data loading worker is probably fast enough for this. In
docs/performance.md, one core loads 1011 images per second, but the images are smaller than COCO's.
"""

_base_ = "coco_tf_400k.py"

train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=120, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=0.1))
auto_scale_lr = dict(base_batch_size=128)
