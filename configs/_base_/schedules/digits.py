"""The digit recipe, for a CPU of two cores: 6 epochs over 2,000 scenes, batch 8, 1,500 iterations.

AdamW, learning rate 0.006 for a batch of 8, 100 warm-up iterations, cosine to 1 % of that rate.
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
    dict(type="CosineAnnealingLR", eta_min_ratio=0.01, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
