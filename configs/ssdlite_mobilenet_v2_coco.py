"""The baseline of the SSDLite configs for COCO: MobileNetV2, with 3x3 kernels in the predictors too.

The network equals that of mmdet's ssdlite_mobilenetv2-scratch_8xb24-600e_coco. mmdet states 21.3
box AP for it.
"""

_base_ = [
    "_base_/models/ssdlite_320.py",
    "_base_/datasets/coco_320.py",
    "_base_/schedules/coco_600e.py",
    "_base_/runtime.py",
]

model = dict(
    backbone=dict(
        type="MixMobileNetV2",
        kernel_sizes=3,
        taps=("stage5", "head"),  # strides 16 and 32
        norm_cfg=dict(type="BN", eps=0.001, momentum=0.03),
        init_cfg=dict(type="TruncNormal", layer="Conv2d", std=0.03),
    ),
)
