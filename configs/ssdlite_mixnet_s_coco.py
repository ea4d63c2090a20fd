"""SSDLite with MixNet-S and MixConv predictors, COCO, 320 x 320, from scratch."""

_base_ = "ssdlite_mixnet_m_coco.py"

model = dict(backbone=dict(arch="s"))
