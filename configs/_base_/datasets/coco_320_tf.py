"""COCO 2017 at 320 x 320 with the augmentation of TensorFlow's SSDLite: flip and SSD's random crop.

The rule for crops is mmdet's: a crop must have a minimum IoU with the objects, as in the SSD paper.
TensorFlow has another rule: a crop must contain a minimum fraction of one object.
"""

_base_ = "coco_320.py"

train_pipeline = [
    dict(type="SeedSample"),
    dict(
        type="SSDRandomCrop",
        scale=(_base_.input_size, _base_.input_size),
        expand_ratio=None,
        min_ious=(0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size=0.3,
        flip_prob=0.5,
        photometric=None,
        backend_args=_base_.backend_args,
    ),
    dict(type="PackChannelsLast"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
