"""Table 1, MobileNetV1, depthwise 3x3: the baseline, on digit scenes."""

_base_ = "../_base_/table1_digits.py"

model = dict(backbone=dict(type="MixMobileNetV1", kernel_sizes=3, taps=("stage3", "stage4")))
