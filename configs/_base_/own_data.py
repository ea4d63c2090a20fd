"""The base of a config for your own data (docs/custom_data.md): SSDLite with MixNet-S, 320 x 320.

The detector has a level of stride 8 for small objects, and starts from the start weights. The training
recipe is schedules/digits.py. Its learning rate is for a batch of 8.
"""

_base_ = [
    "models/ssdlite_320.py",
    "datasets/coco_320.py",
    "schedules/digits.py",
    "runtime.py",
]

train_pipeline = _base_.train_pipeline
train_pipeline[1].update(expand_ratio=(1, 2))  # SSDRandomCrop
train_dataloader = dict(batch_size=8, num_workers=2, dataset=dict(pipeline=train_pipeline))
# With a momentum of 0.1, the running statistics of batch norm adapt within 100 iterations.
model = dict(
    backbone=dict(
        type="MixNet",
        arch="s",
        taps=("stage4.expansion", "stage5", "head"),  # strides 8, 16 and 32
        norm_cfg=dict(type="BN", momentum=0.1),
    ),
    neck=dict(  # 5 and 3 cells per side
        extra_channels=(256, 128),
        level_strides=(2, 2),
        level_paddings=(1, 1),
        norm_cfg=dict(momentum=0.1),
    ),
    bbox_head=dict(
        kernel_sizes=[(3, 5, 7), (3, 5, 7), (3, 5, 7), 3, 3],
        norm_cfg=dict(momentum=0.1),
        anchor_generator=dict(
            min_sizes=[16, 32, 70, 132, 225],
            max_sizes=[32, 70, 132, 225, 315],
            ratios=[[2, 3]] * 5,
        ),
    ),
)
load_from = "mixdet://ssdlite_mixnet_s"  # docs/start_weights.md
