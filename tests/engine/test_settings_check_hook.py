"""Monitors and schedules without effect are refused before the first iteration."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from mmdet.registry import METRICS
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mixdet import launch
from mixdet.config.shipped import config_names
from mixdet.errors import MixDetError
from tests.tiny import write_config

pytestmark = pytest.mark.usefixtures("quick")

SAVE_BEST = "default_hooks['checkpoint']['save_best'] = {!r}\n"
GREATER = "default_hooks['checkpoint']['rule'] = 'greater'\n"
VOC = "val_evaluator = dict(type='VOCMetric', metric='mAP', iou_thrs=[0.5, 0.75])\n"
MMDET = "val_evaluator['type'] = 'CocoMetric'\n"
STOPPING = "custom_hooks = [dict(type='{}', monitor={!r}, rule='greater')]\n"
PLATEAU = "param_scheduler = dict(type='ReduceOnPlateauLR', monitor={!r}, rule='greater')\n"
ITERATIONS = "train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)\n"


@METRICS.register_module()
class OwnMetric(BaseMetric):
    """A user's metric. mmengine has no rule, greater or less, for the names of its results."""

    def process(self, data_batch, data_samples) -> None:
        self.results += data_samples

    def compute_metrics(self, results) -> dict:
        return {"gain": 1.0, "images": len(results)}


def refusal(folder, images, extra: str) -> str:
    with pytest.raises(MixDetError) as error:
        launch.train(str(write_config(folder, images, 1, extra)))
    assert not list(folder.rglob("*.pth"))
    line = str(error.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (VOC, "save_best='coco/bbox_mAP'"),  # save_best of the shipped configs
        (VOC + SAVE_BEST.format("mAP"), "save_best='mAP'"),
        (MMDET + "val_evaluator['prefix'] = 'mine'\n", "save_best='coco/bbox_mAP'"),
        ("val_evaluator['prefix'] = 'mine'\n", "save_best='coco/bbox_mAP'"),
        (SAVE_BEST.format("coco/AR@100") + GREATER, "it is called coco/AR_100 now"),
        (STOPPING.format("EarlyStoppingHook", "coco/mAP"), "EarlyStoppingHook: monitor="),
        (STOPPING.format("ResumableEarlyStoppingHook", "mAP"), "StoppingHook: monitor='mAP'"),
        (PLATEAU.format("coco/mAP"), "ReduceOnPlateauLR: monitor='coco/mAP'"),
        (VOC + SAVE_BEST.format("pascal_voc/mAP") + PLATEAU.format("loss"), "monitor='loss'"),
        ("val_evaluator = dict(type='OwnMetric')\n", "save_best='coco/bbox_mAP'"),
        ("val_evaluator = dict(type='DumpDetResults', out_file_path='x.pkl')\n", "has no metric"),
    ],
)
def test_a_monitor_that_no_metric_gives_is_refused(tmp_path, images, extra, words):
    line = refusal(tmp_path, images, extra)
    assert words in line
    for start, names in (
        (VOC, "pascal_voc/mAP, pascal_voc/AP50, pascal_voc/AP75"),
        ("val_evaluator['prefix']", "mine/bbox_mAP, mine/bbox_mAP_50"),
        (MMDET, "mine/bbox_mAP, mine/bbox_mAP_50"),
        ("val_evaluator = dict(type='OwnMetric'", "use one of gain, images"),
    ):
        if extra.startswith(start):
            assert names in line


@pytest.mark.parametrize(
    "extra",
    [
        VOC + SAVE_BEST.format("pascal_voc/AP75") + GREATER,
        MMDET + STOPPING.format("EarlyStoppingHook", "coco/bbox_mAP_50"),
        MMDET + "val_evaluator['classwise'] = True\n" + SAVE_BEST.format("coco/dark_precision"),
        f"val_evaluator = [val_evaluator, dict(type='OwnMetric')]\n{SAVE_BEST.format('gain')}"
        + GREATER,
        SAVE_BEST.format(["coco/bbox_mAP_50", "coco/AR_100"]) + PLATEAU.format("coco/bbox_mAP"),
        SAVE_BEST.format("auto"),
        "default_hooks['settings_check'] = None\n" + STOPPING.format("EarlyStoppingHook", "mAP"),
    ],
)
def test_a_monitor_that_a_metric_gives_is_accepted(tmp_path, images, extra):
    launch.train(str(write_config(tmp_path, images, 1, extra)))
    assert list(tmp_path.rglob("epoch_1.pth"))


def test_save_best_auto_is_refused_if_no_rule_is_known_for_the_first_metric(tmp_path, images):
    line = refusal(
        tmp_path, images, "val_evaluator = dict(type='OwnMetric')\n" + SAVE_BEST.format("auto")
    )
    assert "set rule to 'greater' or 'less', or save_best to one of gain" in line


@pytest.mark.parametrize("monitor", [PLATEAU, STOPPING.replace("{}", "EarlyStoppingHook")])
def test_a_monitor_without_validation_is_refused(tmp_path, images, monitor):
    none = "val_cfg = val_dataloader = val_evaluator = None\n"
    line = refusal(tmp_path, images, none + monitor.format("coco/bbox_mAP"))
    assert "needs a validation" in line


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("dict(type='MultiStepLR', milestones=[1])", "param_scheduler: MultiStepLR"),
        ("[dict(type='CosineAnnealingLR', T_max=1)]", "it never changes the learning rate"),
        (
            "[dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True)]",
            "param_scheduler.0: CosineAnnealingLR counts epochs, but IterBasedTrainLoop has none, "
            "so it ends after one pass",
        ),
    ],
)
def test_a_schedule_of_epochs_in_a_loop_of_iterations_is_refused(tmp_path, images, schedule, words):
    line = refusal(tmp_path, images, ITERATIONS + f"param_scheduler = {schedule}\n")
    assert words in line
    assert "set by_epoch=False" in line


class OneWeight(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode="tensor"):
        return {"loss": self.weight.sum()}


class Forty(Dataset):
    metainfo: ClassVar[dict] = {}

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict:
        return {"inputs": torch.zeros(1)}


class RecordRates(Hook):
    priority = "VERY_LOW"

    def __init__(self) -> None:
        self.rates: list[float] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.rates += runner.optim_wrapper.get_lr()["lr"]


@pytest.mark.parametrize(
    "loop",
    [dict(by_epoch=True, max_epochs=4), dict(type="IterBasedTrainLoop", max_iters=40)],
    ids=["epochs", "iterations"],
)
@pytest.mark.parametrize(
    "name", ["ssdlite_mixnet_s_digits", "ssdlite_mixnet_m_coco", "ssdlite_mixnet_m_tf_coco"]
)
def test_the_cosine_of_a_shipped_schedule_ends_with_the_training(tmp_path, name, loop):
    warm_up, cosine = Config.fromfile(config_names()[name]).param_scheduler
    recorder, floor = RecordRates(), cosine.get("eta_min_ratio", 0)
    Runner(
        OneWeight(),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=4, dataset=Forty(), sampler=dict(type="DefaultSampler", shuffle=False)
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=1.0)),
        param_scheduler=[warm_up | {"end": 4}, cosine],
        custom_hooks=[recorder],
        default_hooks=dict(logger=None, checkpoint=None, timer=None),
        experiment_name=f"{tmp_path.name}",
    ).train()
    expected = [floor + (1 - floor) * (1 + math.cos(math.pi * i / 40)) / 2 for i in range(4, 40)]
    # the warm-up overlaps the cosine, so a cosine with a floor differs slightly from the formula
    assert recorder.rates[4:] == pytest.approx(expected, abs=1e-4)


def test_a_monitor_of_one_of_several_data_sets_starts_with_its_prefix(tmp_path, images):
    """`MultiDatasetsEvaluator` puts a data set's prefix before the names of its metrics."""
    several = (
        "val_evaluator = dict(type='MultiDatasetsEvaluator', metrics=[val_evaluator],"
        " dataset_prefixes=['tools'])\n"
        "val_dataloader['dataset'] = dict(type='ConcatDataset',"
        " datasets=[val_dataloader['dataset']])\n"
    )
    line = refusal(tmp_path, images, several)
    assert "use one of tools/coco/bbox_mAP, tools/coco/bbox_mAP_50" in line
    config = write_config(tmp_path, images, 1, several + SAVE_BEST.format("tools/coco/bbox_mAP"))
    launch.train(str(config))
    assert list(tmp_path.rglob("best_*.pth"))
