"""Table 1 of the MixConv paper: MobileNetV1 with depthwise 5x5 kernels."""

_base_ = "ssdlite_mobilenet_v1_3x3_coco.py"

model = dict(backbone=dict(kernel_sizes=5))
