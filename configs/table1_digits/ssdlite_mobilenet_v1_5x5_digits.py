"""Table 1, MobileNetV1, depthwise 5x5, on digit scenes."""

_base_ = "../_base_/table1_digits.py"

model = dict(backbone=dict(type="MixMobileNetV1", kernel_sizes=5, taps=("stage3", "stage4")))
