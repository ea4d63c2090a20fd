"""MixNet-L in the detector of table 1 of the MixConv paper. The table itself has no MixNet."""

_base_ = "ssdlite_mixnet_s_tf_coco.py"

model = dict(backbone=dict(arch="l"))
