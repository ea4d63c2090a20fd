"""Table 1: MobileNetV1 with depthwise 3x3, the baseline of its column."""

_base_ = "../_base_/table1.py"

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # as timm's MobileNetV1 expects
    backbone=dict(type="MixMobileNetV1", kernel_sizes=3, taps=("stage4", "stage5")),
)
