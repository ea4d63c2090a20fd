"""Table 1, MobileNetV1, depthwise 7x7, on digit scenes."""

_base_ = "ssdlite_mobilenet_v1_3x3_digits.py"

model = dict(backbone=dict(kernel_sizes=7))
