"""MixNet-M with plain 3x3 SSDLite predictors: what the backbone alone brings."""

_base_ = "ssdlite_mixnet_m_coco.py"

model = dict(bbox_head=dict(kernel_sizes=3))
