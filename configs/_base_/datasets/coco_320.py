"""COCO 2017 at 320 x 320 with SSD's augmentation: expand, IoU crop, resize, flip, color distortion.

`data_root` must contain annotations/instances_{train,val}2017.json, train2017/ and val2017/.
"""

data_root = "data/coco/"
input_size = 320
backend_args = None

train_pipeline = [
    dict(type="SeedSample"),  # seeds each sample by (seed, epoch, index)
    dict(
        type="SSDRandomCrop",  # also reads the image file, and decodes only what the crop needs
        scale=(input_size, input_size),
        expand_ratio=(1, 4),
        fill=[123.675, 116.28, 103.53],
        min_ious=(0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size=0.3,
        flip_prob=0.5,
        photometric=dict(
            brightness_delta=32,
            contrast_range=(0.5, 1.5),
            saturation_range=(0.5, 1.5),
            hue_delta=18,
        ),
        backend_args=backend_args,
    ),
    dict(type="PackChannelsLast"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", backend_args=backend_args),
    dict(type="Resize", scale=(input_size, input_size), keep_ratio=False),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="PackChannelsLast",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]

train_dataloader = dict(
    batch_size=24,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,  # batch norm on the 1x1 feature map needs several images
    sampler=dict(type="SeededSampler", shuffle=True),
    collate_fn=dict(type="packed_collate"),  # makes batches cheap to send from a worker
    dataset=dict(
        type="SafeCocoDataset",
        data_root=data_root,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        max_broken=0.01,  # training stops if more than this fraction of the images is broken
        pipeline=train_pipeline,
        backend_args=backend_args,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="packed_collate"),
    dataset=dict(
        type="SafeCocoDataset",
        data_root=data_root,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="CocoDetectionMetric", ann_file=data_root + "annotations/instances_val2017.json"
)
test_evaluator = val_evaluator
