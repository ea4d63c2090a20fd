"""MixNet-S in the frame of table 1, plain predictors, on digit scenes."""

_base_ = "../_base_/table1_digits.py"

model = dict(backbone=dict(type="MixNet", arch="s"))
