"""Table 1 of the MixConv paper: MobileNetV2 with depthwise 5x5 kernels."""

_base_ = "ssdlite_mobilenet_v2_3x3_coco.py"

model = dict(backbone=dict(kernel_sizes=5))
