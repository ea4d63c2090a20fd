"""The frame of table 1 on digit scenes: only the backbone, and what a row says, differ.

Both taps exist under these names in MobileNetV2 and in MixNet; MobileNetV1 names its own.
"""

_base_ = [
    "models/ssdlite_digits.py",
    "datasets/digits_160.py",
    "schedules/digits_short.py",
    "runtime.py",
]

model = dict(
    backbone=dict(
        taps=("stage4.expansion", "stage5"),  # strides 8 and 16
        norm_cfg=dict(type="BN", momentum=0.1),
    )
)
