"""MixNet-M with MixConv predictors on digit scenes. Table 1 of the MixConv paper has no such row."""

_base_ = "ssdlite_mixnet_m_plainhead_digits.py"

model = dict(bbox_head=dict(kernel_sizes=[(3, 5, 7), (3, 5, 7), (3, 5)]))
