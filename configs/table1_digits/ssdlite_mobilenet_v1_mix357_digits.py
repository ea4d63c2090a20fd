"""Table 1, MobileNetV1, depthwise MixConv {3,5,7}, on digit scenes."""

_base_ = "../_base_/table1_digits.py"

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # what timm's V1 expects
    backbone=dict(type="MixMobileNetV1", kernel_sizes=(3, 5, 7), taps=("stage3", "stage4")),
)
