"""Table 1 of the MixConv paper on digit scenes: MobileNetV2 with depthwise MixConv {3,5} kernels."""

_base_ = "../_base_/table1_digits.py"

model = dict(backbone=dict(type="MixMobileNetV2", kernel_sizes=(3, 5)))
