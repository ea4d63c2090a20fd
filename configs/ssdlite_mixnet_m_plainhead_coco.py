"""SSDLite with MixNet-M and depthwise 3x3 predictors, to measure the effect of the backbone only."""

_base_ = "ssdlite_mixnet_m_coco.py"

model = dict(bbox_head=dict(kernel_sizes=3))
