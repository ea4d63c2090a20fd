"""The config of the start weights: the detector of own_data.py on the shape scenes, 160 x 160.

`python tools/make_shape_scenes.py` writes the scenes. See docs/start_weights.md.
"""

_base_ = "_base_/own_data.py"

data_root = "data/shape_scenes/"
size = 160
classes = tuple(f"object_{index:02d}" for index in range(48))
data = dict(data_root=data_root, metainfo=dict(classes=classes))
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(scale=(size, size), expand_ratio=(1, 1.5), min_crop_size=0.4)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(size, size))
train_dataloader = dict(
    dataset=dict(
        **data,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train/"),
        filter_cfg=dict(filter_empty_gt=False, min_size=1),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        **data,
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="val/"),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = val_evaluator
model = dict(
    input_size=size,
    bbox_head=dict(
        num_classes=len(classes),
        anchor_generator=dict(min_sizes=[16, 32, 64, 100, 140], max_sizes=[32, 64, 100, 140, 160]),
    ),
)
load_from = None
train_cfg = dict(max_epochs=6, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=3))
