"""SSDLite with MixNet-M, started from timm's ImageNet weights (a download, or `init_cfg.checkpoint`)."""

_base_ = "ssdlite_mixnet_m_coco.py"

model = dict(backbone=dict(init_cfg=dict(type="TimmPretrained")))
