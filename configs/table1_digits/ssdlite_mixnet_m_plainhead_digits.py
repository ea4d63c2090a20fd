"""MixNet-M with 3x3 predictors on digit scenes. Table 1 of the MixConv paper has no such row."""

_base_ = "../_base_/table1_digits.py"

model = dict(backbone=dict(type="MixNet", arch="m"))
