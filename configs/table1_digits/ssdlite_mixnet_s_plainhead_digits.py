"""MixNet-S in the detector of table 1, with plain predictors, on digit scenes."""

_base_ = "../_base_/table1_digits.py"

model = dict(backbone=dict(type="MixNet", arch="s"))
