"""The COCO recipe from scratch of mmdet's ssdlite_mobilenetv2-scratch_8xb24-600e_coco.

600 epochs over train2017: 117,266 images that hold objects, 8 GPUs x 24 = 192 images a batch,
610 iterations an epoch, 366,000 in all (mmdet writes this as 120 epochs of a data set that is
repeated 5 times). SGD, learning rate 0.015 for a batch of 192, 500 warm-up iterations, cosine to 0.

The cost is estimated, not measured: 70 million images forward and backward take about 20 hours on a
GPU that computes 1,000 images a second. Whether the 4 workers of coco_320.py keep up with such a
GPU depends on the processor. docs/performance.md has figures for images of 400 pixels. The larger
images of COCO take longer to decode.
"""

train_cfg = dict(type="ResumableTrainLoop", max_epochs=600, val_interval=25)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.015, momentum=0.9, weight_decay=4.0e-5),
    clip_grad=dict(max_norm=35, norm_type=2),  # mmdet's recipe does not limit gradients
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    # without `end` the schedule ends with the training
    dict(type="CosineAnnealingLR", eta_min=0, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=192)
