"""Table 1 of the MixConv paper on digit scenes: MobileNetV1 with depthwise 3x3 kernels, the baseline."""

_base_ = "../_base_/table1_digits.py"

model = dict(
    # the normalization that timm's weights of MobileNetV1 expect
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(type="MixMobileNetV1", kernel_sizes=3, taps=("stage3", "stage4")),
)
