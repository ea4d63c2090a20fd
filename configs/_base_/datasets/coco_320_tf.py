"""COCO 2017 at 320 x 320 with the augmentation of TensorFlow's SSDLite: flip and SSD's random crop.

The crop is mmdet's. TensorFlow's asks for a share of one object inside the crop; mmdet's, as SSD's
paper, for an IoU of crop and objects.
"""

_base_ = "coco_320.py"

train_pipeline = [
    dict(type="SeedSample"),
    dict(type="LoadImageFromFile", backend_args=_base_.backend_args),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="MinIoURandomCrop", min_ious=(0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size=0.3),
    dict(type="Resize", scale=(_base_.input_size, _base_.input_size), keep_ratio=False),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
