"""Table 1 of the MixConv paper on digit scenes: MobileNetV1 with depthwise MixConv {3,5,7} kernels."""

_base_ = "ssdlite_mobilenet_v1_3x3_digits.py"

model = dict(backbone=dict(kernel_sizes=(3, 5, 7)))
