"""Table 1 of the MixConv paper on digit scenes: MobileNetV1 with depthwise 7x7 kernels."""

_base_ = "ssdlite_mobilenet_v1_3x3_digits.py"

model = dict(backbone=dict(kernel_sizes=7))
