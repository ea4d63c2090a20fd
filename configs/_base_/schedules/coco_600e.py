"""Training on COCO from scratch, as in mmdet's ssdlite_mobilenetv2-scratch_8xb24-600e_coco.

The training has 600 epochs over the 117,266 images of train2017 that hold objects. A batch has
8 GPUs x 24 = 192 images, so an epoch has 610 iterations and the training 366,000. mmdet writes this
as 120 epochs of a data set that is repeated 5 times. The optimizer is SGD. Its learning rate is
0.015 for a batch of 192. It rises for 500 warm-up iterations, and then falls to 0 on a cosine.

The cost is estimated, not measured: training on 70 million images takes about 20 hours on a GPU that
trains on 1,000 images per second. Whether the 4 workers of coco_320.py can load 1,000 images per
second depends on the processor. docs/performance.md has speeds for images of up to 400 x 400. The
larger images of COCO take longer to decode.
"""

train_cfg = dict(type="ResumableTrainLoop", max_epochs=600, val_interval=25)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.015, momentum=0.9, weight_decay=4.0e-5),
    clip_grad=dict(max_norm=35, norm_type=2),  # mmdet's recipe does not clip gradients
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    # without `end` the schedule ends with the training
    dict(type="CosineAnnealingLR", eta_min=0, by_epoch=False),
]
auto_scale_lr = dict(enable=False, base_batch_size=192)
