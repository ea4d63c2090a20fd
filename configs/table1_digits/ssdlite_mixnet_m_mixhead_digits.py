"""MixNet-M in the detector of table 1, with MixConv predictors, on digit scenes."""

_base_ = "ssdlite_mixnet_m_plainhead_digits.py"

model = dict(bbox_head=dict(kernel_sizes=[(3, 5, 7), (3, 5, 7), (3, 5)]))
