"""MixNet-S in the digit recipe with the taps and heads that the plain path has too.

Its twin is ssdlite_mixnet_s_timm_in_mmdet_digits: the same network, recipe and number of parameters.
"""

_base_ = "../ssdlite_mixnet_s_digits.py"

model = dict(
    backbone=dict(taps=("stage3", "stage5")),  # 40 channels at stride 8, 120 at stride 16
    bbox_head=dict(kernel_sizes=3),
)
