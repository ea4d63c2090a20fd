"""SSDLite with MixNet-M and MixConv predictors, COCO, 320 x 320, from scratch."""

_base_ = [
    "_base_/models/ssdlite_320.py",
    "_base_/datasets/coco_320.py",
    "_base_/schedules/coco_600e.py",
    "_base_/runtime.py",
]

model = dict(
    backbone=dict(
        type="MixNet",
        arch="m",
        taps=("stage5", "head"),  # strides 16 and 32
        norm_cfg=dict(type="BN", momentum=0.03),
    ),
    bbox_head=dict(
        # On the levels with 3, 2 and 1 cells per side, a larger kernel would cover mostly padding.
        kernel_sizes=[(3, 5, 7), (3, 5, 7), (3, 5), 3, 3, 3],
    ),
)
