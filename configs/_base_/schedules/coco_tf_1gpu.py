"""TensorFlow's from-scratch recipe, cut down to what one GPU does in a night.

120 epochs over train2017: 117,266 images that hold objects, 1 GPU x 128 images a batch, 916
iterations an epoch, 109,920 in all: 14.1 million images, 7 % of the 205 million of coco_tf_400k,
so expect less AP than it gives. Learning rate 0.1 for a batch of 128; all else as there.

Cost: measured is an iteration of 8 images without data loading, 1.0 s on 2 cores of an AMD EPYC
(Zen 3): 20 days there. Worked out, not measured: at an assumed 500 images a second and GPU, 8 hours;
crop and flip (docs/performance.md: some 450 images a second and core) keep 2 workers busy.
"""

_base_ = "coco_tf_400k.py"

train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=120, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=0.1))
auto_scale_lr = dict(base_batch_size=128)
