"""Table 1, MobileNetV1, depthwise 3x3: the baseline, on digit scenes."""

_base_ = "../_base_/table1_digits.py"

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # as timm's MobileNetV1 expects
    backbone=dict(type="MixMobileNetV1", kernel_sizes=3, taps=("stage3", "stage4")),
)
