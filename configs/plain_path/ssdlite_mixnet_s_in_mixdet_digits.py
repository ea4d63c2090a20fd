"""MixNet-S in the digit recipe, with backbone outputs and predictors that timm and mmdet also have.

The network and the recipe equal those of ssdlite_mixnet_s_timm_in_mmdet_digits.
"""

_base_ = "../ssdlite_mixnet_s_digits.py"

model = dict(
    backbone=dict(taps=("stage3", "stage5")),  # 40 channels at stride 8, 120 at stride 16
    bbox_head=dict(kernel_sizes=3),
)
