"""MixNet-S in the frame of table 1, which the paper has no row for."""

_base_ = "../_base_/table1.py"

model = dict(backbone=dict(type="MixNet", arch="s", taps=("stage6.expansion", "head")))
