"""TensorFlow's recipe for SSDLite from scratch: 400,000 steps with a batch of 512.

The training has 1,747 epochs over the 117,266 images of train2017 that hold objects. A batch has
8 GPUs x 64 = 512 images, so an epoch has 229 iterations and the training 400,063. The optimizer is
SGD with a momentum of 0.9. The learning rate is 0.4 for a batch of 512, as for TensorFlow's
MobileNetV3-large. TensorFlow uses 0.8 for MobileDet. The rate begins at a third of 0.4, rises for 2,000
warm-up iterations, and then falls to 0 on a cosine. A weight decay of 4e-5 applies only to the
weights of convolutions. The augmentation is flip and SSD's random crop.

The cost is estimated, not measured: training on 205 million images takes 57 GPU-hours, or 7 hours on
8 GPUs, if each GPU trains on 1,000 images per second and the data loading is as fast.
"""

_base_ = "../datasets/coco_320_tf.py"

train_dataloader = dict(batch_size=64)
train_cfg = dict(type="ResumableTrainLoop", max_epochs=1747, val_interval=50)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.4, momentum=0.9, weight_decay=4.0e-5),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=35, norm_type=2),  # TensorFlow's recipe does not clip gradients
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=2000),
    # without `end` the schedule ends with the training
    dict(type="CosineAnnealingLR", eta_min=0, by_epoch=False),
]
auto_scale_lr = dict(enable=False, base_batch_size=512)
