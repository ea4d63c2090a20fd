"""MixNet-M in the frame of table 1, which the paper has no row for."""

_base_ = "ssdlite_mixnet_s_tf_coco.py"

model = dict(backbone=dict(arch="m"))
