"""timm's MixNet-S in mmdet's own SSDLite, in the digit recipe: a detector without MixDet's layers.

The network and the recipe equal those of ssdlite_mixnet_s_in_mixdet_digits.
"""

_base_ = "../ssdlite_mobilenet_v2_mmdet_digits.py"

custom_imports = dict(imports=["mixdet.plugin", "mixdet.models.backbones.timm_features"])
channels = (40, 120, 128)

model = dict(
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        name="mixnet_s",
        out_indices=(2, 3),  # strides 8 and 16
    ),
    neck=dict(in_channels=channels[:2], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)
