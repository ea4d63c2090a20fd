"""The digit recipe, short enough for a CPU of two cores: 6 epochs over 2,000 digit scenes.

With a batch of 8, these are 1,500 iterations. The optimizer is AdamW with a learning rate of 0.006 for
a batch of 8. The rate rises for 100 warm-up iterations, and then falls to 1 % of 0.006 on a cosine.
"""

train_cfg = dict(type="ResumableTrainLoop", max_epochs=6, val_interval=2)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.006, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    # without `end` the schedule ends with the training
    dict(type="CosineAnnealingLR", eta_min_ratio=0.01, by_epoch=False),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
