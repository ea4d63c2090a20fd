"""The config of `make train`: SSDLite with MixNet-S on the digit scenes, 160 x 160, from scratch."""

_base_ = [
    "_base_/models/ssdlite_digits.py",
    "_base_/datasets/digits_160.py",
    "_base_/schedules/digits.py",
    "_base_/runtime.py",
]

model = dict(
    backbone=dict(
        type="MixNet",
        arch="s",
        taps=("stage4.expansion", "stage5"),  # 240 channels at stride 8, 120 at stride 16
        norm_cfg=dict(type="BN", momentum=0.1),
    ),
    bbox_head=dict(kernel_sizes=[(3, 5, 7), (3, 5, 7), (3, 5)]),
)
