"""Table 1 of the MixConv paper: MobileNetV2 with MixConv {3, 5} kernels."""

_base_ = "ssdlite_mobilenet_v2_3x3_coco.py"

model = dict(backbone=dict(kernel_sizes=(3, 5)))
