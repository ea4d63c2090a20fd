"""SSDLite with MixNet-M, started from timm's ImageNet weights.

The weights are downloaded, unless `init_cfg.checkpoint` names a file.
"""

_base_ = "ssdlite_mixnet_m_coco.py"

model = dict(backbone=dict(init_cfg=dict(type="TimmPretrained")))
