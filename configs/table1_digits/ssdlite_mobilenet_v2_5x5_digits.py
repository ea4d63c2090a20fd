"""Table 1 of the MixConv paper on digit scenes: MobileNetV2 with depthwise 5x5 kernels."""

_base_ = "../_base_/table1_digits.py"

model = dict(backbone=dict(type="MixMobileNetV2", kernel_sizes=5))
