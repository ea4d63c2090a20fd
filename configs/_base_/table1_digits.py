"""The base of all configs in configs/table1_digits: table 1 of the MixConv paper on digit scenes.

The configs with MobileNetV2 and MixNet use the two taps below. The configs with MobileNetV1 set
other taps.
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
