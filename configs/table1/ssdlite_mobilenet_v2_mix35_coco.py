"""Table 1: MobileNetV2 with MixConv {3, 5}."""

_base_ = "ssdlite_mobilenet_v2_3x3_coco.py"

model = dict(backbone=dict(kernel_sizes=(3, 5)))
