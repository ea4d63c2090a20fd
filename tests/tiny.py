"""A detector, a data set and a config so small that a whole training run takes a second."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import HOOKS, MODELS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from torch import nn

IMAGES = 14
SIZE = 64
CLASSES = ("dark", "bright")
_names = itertools.count()


def write_images(root: Path) -> Path:
    """Write images with one or two rectangles in COCO's layout; return the root.

    The training split and the validation split have the same number of images, but share none.
    """
    rng = np.random.default_rng(0)
    for split in ("train2017", "val2017"):
        images, annotations = [], []
        (root / split).mkdir(parents=True)
        for image_id in range(1, IMAGES + 1):
            image = rng.integers(90, 160, (SIZE, SIZE, 3), dtype=np.uint8)
            for _ in range(image_id % 2 + 1):
                category = int(rng.integers(2))
                width, height = rng.integers(12, 40, 2).tolist()
                x, y = (int(rng.integers(SIZE - side + 1)) for side in (width, height))
                image[y : y + height, x : x + width] = 255 * category
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": category + 1,
                        "bbox": [x, y, width, height],
                        "area": width * height,
                        "iscrowd": 0,
                    }
                )
            name = f"{image_id}.png"
            cv2.imwrite(str(root / split / name), image)
            images.append({"id": image_id, "file_name": name, "width": SIZE, "height": SIZE})
        categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        file = root / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return root


@contextmanager
def quick_settings() -> Iterator[None]:
    """Compute in one thread, and skip mmengine's slow formatting of the config."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        formatted = "mmengine.config.config.FormatCode"
        patch.setattr(formatted, lambda text, **_: (text, True), raising=False)
        yield
    torch.set_num_threads(threads)


@MODELS.register_module()
class TinyBackbone(nn.Module):
    """Two stages at strides 8 and 16. Dropout makes the model draw random numbers.

    Args:
        plain: Whether to leave out dropout and batch norm. The output for an image then does not
            depend on the other images of the batch.
    """

    def __init__(self, plain: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4, padding=2, bias=False),
            nn.Identity() if plain else nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.Dropout(0.0 if plain else 0.2),
        )
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = self.first(x)
        return first, self.second(first)


@HOOKS.register_module()
class CtrlC(Hook):
    """Interrupt the process, as Ctrl-C does, before the training iteration with a given number.

    With `validation`, interrupt the validation that follows this number of iterations instead.
    """

    def __init__(self, iteration: int, validation: bool = False) -> None:
        self.iteration, self.validation = iteration, validation

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if not self.validation and runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGINT)

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        if self.validation and runner.iter == self.iteration and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGINT)


@HOOKS.register_module()
class RecordLosses(Hook):
    """Write the loss of every iteration of this process to a file named after its rank."""

    def __init__(self, folder: str) -> None:
        self.file = Path(folder, f"losses_{get_rank()}.txt")

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        with self.file.open("a") as file:
            print(float(outputs["loss"].detach()), file=file)


@HOOKS.register_module()
class KillRank(Hook):
    """Kill the process of one rank with SIGKILL before a training iteration."""

    def __init__(self, rank: int, iteration: int) -> None:
        self.rank, self.iteration = rank, iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if get_rank() == self.rank and runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


CONFIG = """
default_scope = 'mmdet'
custom_imports = dict(imports=['mixdet.plugin', 'tests.tiny'], allow_failed_imports=False)
experiment_name = '{name}'
work_dir = '{work_dir}'
classes = ('dark', 'bright')
data_root = '{data_root}'
train_pipeline = [
    dict(type='SeedSample'),
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', data_root=data_root, metainfo=dict(classes=classes),
        ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/'),
        serialize_data=False, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset', data_root=data_root, metainfo=dict(classes=classes), test_mode=True,
        ann_file='annotations/instances_val2017.json', data_prefix=dict(img='val2017/'),
        serialize_data=False, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoDetectionMetric', ann_file=data_root + '/annotations/instances_val2017.json')
test_evaluator = val_evaluator
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[127.5] * 3, std=[64.0] * 3, pad_size_divisor=1),
    backbone=dict(type='TinyBackbone'),
    bbox_head=dict(
        type='SSDHead', in_channels=(8, 8), num_classes=2,
        anchor_generator=dict(
            type='SSDAnchorGenerator', scale_major=False, input_size=64, strides=[8, 16],
            ratios=[[2], [2]], min_sizes=[14, 28], max_sizes=[28, 48])),
    train_cfg=dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0,
                      ignore_iof_thr=-1, gt_max_assign_all=False),
        sampler=dict(type='PseudoSampler'), smoothl1_beta=1.0, allowed_border=-1, pos_weight=-1,
        neg_pos_ratio=3, debug=False),
    test_cfg=dict(nms_pre=100, nms=dict(type='nms', iou_threshold=0.45), min_bbox_size=0,
                  score_thr=0.02, max_per_img=20))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
                   dict(type='MultiStepLR', milestones=[1], by_epoch=True)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs={epochs}, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='SafeCheckpointHook', interval=1, save_best='coco/bbox_mAP'),
    seed=dict(type='SeedIterationHook'),
    interrupt=dict(type='InterruptHook'),
    report=dict(type='ReportHook', sheet=False, errors=False))
custom_hooks = []
randomness = dict(seed=0)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='{name}')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
load_from = None
resume = False
"""


def write_config(folder: Path, data_root: Path, epochs: int = 2, extra: str = "") -> Path:
    """Write a config with a work folder beside it; return its path.

    The config's name is unique in this process, since mmengine keeps a logger and more per name.
    """
    name = f"tiny_{next(_names)}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    values = {"name": name, "work_dir": folder / "work", "data_root": data_root, "epochs": epochs}
    path.write_text(CONFIG.format(**values) + extra)
    return path
