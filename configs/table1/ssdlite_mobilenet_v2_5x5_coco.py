"""Table 1: MobileNetV2 with depthwise 5x5."""

_base_ = "ssdlite_mobilenet_v2_3x3_coco.py"

model = dict(backbone=dict(kernel_sizes=5))
