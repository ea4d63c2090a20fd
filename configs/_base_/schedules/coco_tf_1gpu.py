"""TensorFlow's recipe from scratch, cut down for one GPU and one night.

120 epochs over train2017: 117,266 images that hold objects, 1 GPU x 128 images a batch, 916
iterations an epoch, 109,920 in all. These are 14.1 million images, 7 % of the 205 million of
coco_tf_400k, so expect a lower AP. The learning rate is 0.1 for a batch of 128. All other settings
are those of coco_tf_400k.

On 2 cores of an AMD EPYC (Zen 3) an iteration of 8 images was measured at 1.0 s without data
loading. The recipe would take 20 days there. The cost on a GPU is estimated, not measured: 8 hours
at 500 images a second. One worker can crop and flip as many (docs/performance.md: 1011 images a
second and core, of 400 pixels).
"""

_base_ = "coco_tf_400k.py"

train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=120, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=0.1))
auto_scale_lr = dict(base_batch_size=128)
