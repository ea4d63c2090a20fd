"""The base of all rows of configs/table1_digits: table 1 of the MixConv paper on digit scenes.

MobileNetV2 and MixNet have the two taps below. The rows with MobileNetV1 set other taps.
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
