"""MixNet-S in the detector of table 1 of the MixConv paper. The table itself has no MixNet."""

_base_ = "../_base_/table1.py"

model = dict(backbone=dict(type="MixNet", arch="s", taps=("stage6.expansion", "head")))
