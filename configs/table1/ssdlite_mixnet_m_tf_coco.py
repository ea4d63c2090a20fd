"""MixNet-M in the detector of table 1 (not a row of the paper)."""

_base_ = "ssdlite_mixnet_s_tf_coco.py"

model = dict(backbone=dict(arch="m"))
