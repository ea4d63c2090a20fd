"""The digit scenes at 160 x 160. MixDet contains this data set, and writes its files on first use.

Images are not flipped, since mirrored digits do not occur.
"""

data_root = "data/digit_scenes/"

train_pipeline = [
    dict(type="SeedSample"),  # seeds each sample by (seed, epoch, index)
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(160, 160), keep_ratio=False),
    dict(type="PackChannelsLast"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(160, 160), keep_ratio=False),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="PackChannelsLast",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="SeededSampler", shuffle=True),
    collate_fn=dict(type="packed_collate"),  # makes batches cheap to send from a worker
    dataset=dict(
        type="DigitScenes",
        data_root=data_root,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train/"),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="packed_collate"),
    dataset=dict(
        type="DigitScenes",
        data_root=data_root,
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="val/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="CocoDetectionMetric", ann_file=data_root + "annotations/instances_val.json"
)
test_evaluator = val_evaluator
