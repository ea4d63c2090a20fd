"""Table 1, MobileNetV2, depthwise MixConv {3,5}, on digit scenes."""

_base_ = "../_base_/table1_digits.py"

model = dict(backbone=dict(type="MixMobileNetV2", kernel_sizes=(3, 5)))
