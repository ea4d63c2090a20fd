"""MixNet-M that starts from timm's ImageNet weights (downloaded, or `init_cfg.checkpoint`)."""

_base_ = "ssdlite_mixnet_m_coco.py"

model = dict(backbone=dict(init_cfg=dict(type="TimmPretrained")))
