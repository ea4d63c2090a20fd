"""Table 1 of the MixConv paper: MobileNetV2 with depthwise 3x3 kernels, the baseline of the MobileNetV2 column."""

_base_ = "../_base_/table1.py"

model = dict(
    backbone=dict(type="MixMobileNetV2", kernel_sizes=3, taps=("stage6.expansion", "head"))
)
