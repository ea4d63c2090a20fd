"""MixNet-S in the detector of table 1 (not a row of the paper)."""

_base_ = "../_base_/table1.py"

model = dict(backbone=dict(type="MixNet", arch="s", taps=("stage6.expansion", "head")))
