"""On real COCO images, a detector is trained, resumed and evaluated, and memorizes a few images."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import mixdet.plugin

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mixdet.evaluation.coco_scores import STATS
from tests.conftest import ROOT

CONFIG = ROOT / "configs/ssdlite_mixnet_m_coco.py"

pytestmark = pytest.mark.heavy


def run_tool(*arguments: object, interrupt_at: str | None = None, code: int = 0) -> str:
    """Run a tool; return what it printed.

    Args:
        *arguments: The tool and its arguments.
        interrupt_at: Press Ctrl-C when a line with this text is printed.
        code: The exit code that the tool must end with.
    """
    command = [sys.executable, *map(str, arguments)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    # if a shell runs pytest in the background, pytest and its child processes ignore Ctrl-C
    restore_ctrl_c = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, preexec_fn=restore_ctrl_c, **pipes
    ) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if interrupt_at and interrupt_at in line:
                os.killpg(process.pid, signal.SIGINT)
                interrupt_at = None
    out = "".join(lines)
    assert process.returncode == code, out
    return out


def logged(work_dir: Path) -> list[dict]:
    """Return the entries of all scalars.json files in a work folder, oldest run first."""
    files = sorted(work_dir.glob("*/vis_data/scalars.json"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_resumed_training_equals_an_uninterrupted_one_and_is_evaluated(coco_sample, tmp_path):
    work_dir, whole = tmp_path / "work", tmp_path / "whole"
    options = ("train_dataloader.batch_size=9", "default_hooks.logger.interval=1")
    options += ("train_cfg.max_epochs=2", "train_cfg.val_interval=2", "param_scheduler.0.end=4")
    options += ("model.test_cfg.score_thr=0.001",)  # after ten iterations all scores are low
    common = ("--data-root", coco_sample, "--cfg-options", *options)
    train = ("tools/train.py", CONFIG, "--work-dir")
    run_tool(*train, whole, *common)
    # an epoch has five iterations
    run_tool(*train, work_dir, *common, interrupt_at="Epoch(train) [2][1/5]", code=130)
    stopped = torch.load(work_dir / "interrupted.pth", weights_only=True)["meta"]
    assert stopped["epoch"] == 1
    assert 6 <= stopped["iter"] < 10  # in the middle of epoch 2
    run_tool(*train, work_dir, "--resume", *common)
    once, twice = (
        torch.load(folder / "epoch_2.pth", weights_only=True) for folder in (whole, work_dir)
    )
    assert once["meta"]["iter"] == twice["meta"]["iter"] == 10
    differing = [
        name
        for name, weight in once["state_dict"].items()
        if not torch.equal(weight, twice["state_dict"][name])
    ]
    assert not differing
    losses = [entry["loss"] for entry in logged(work_dir) if "loss" in entry]
    assert losses == [entry["loss"] for entry in logged(whole) if "loss" in entry]
    assert all(torch.isfinite(torch.tensor(losses)))

    results = tmp_path / "results.json"
    checkpoint = work_dir / "epoch_2.pth"
    run_tool("tools/test.py", CONFIG, checkpoint, "--out", results, "--work-dir", work_dir, *common)
    (tested,) = work_dir.glob("*/*.json")
    entry = json.loads(tested.read_text())
    truth = COCO(coco_sample / "annotations/instances_val2017.json")
    evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert [entry[f"coco/{name}"] for name in STATS] == evaluation.stats.tolist()


def few_images(coco_sample: Path, folder: Path, count: int = 6) -> Path:
    """Write an annotation file of images with few objects, all of them large; return its path."""
    source = json.loads((coco_sample / "annotations/instances_train2017.json").read_text())
    chosen, kept = [], []
    for image in source["images"]:
        objects = [a for a in source["annotations"] if a["image_id"] == image["id"]]
        scale = 320 / image["width"] * 320 / image["height"]
        if 1 <= len(objects) <= 4 and all(
            a["bbox"][2] * a["bbox"][3] * scale > 48**2 and not a["iscrowd"] for a in objects
        ):
            chosen.append(image)
            kept += objects
    chosen = chosen[:count]
    assert len(chosen) == count
    ids = {image["id"] for image in chosen}
    kept = [a for a in kept if a["image_id"] in ids]
    path = folder / "few.json"
    path.write_text(json.dumps(source | dict(images=chosen, annotations=kept)))
    return path


def test_a_detector_memorizes_a_few_real_images(coco_sample, tmp_path):
    """The mAP gets high only if assignment, box coding, loss, decoding and metric fit together."""
    ann_file = str(few_images(coco_sample, tmp_path))
    config = Config.fromfile(CONFIG)
    config.model.backbone.arch = "s"
    load, resize, annotations, _ = config.test_pipeline
    plain = [load, annotations, resize]  # in this order, the boxes are resized too
    shared = dict(data_root=str(coco_sample), ann_file=ann_file, data_prefix=dict(img="train2017/"))
    config.merge_from_dict(
        dict(
            work_dir=str(tmp_path / "work"),
            train_dataloader=dict(
                batch_size=6,
                num_workers=0,
                persistent_workers=False,
                dataset=shared | dict(pipeline=[*plain, dict(type="PackDetInputs")]),
            ),
            val_dataloader=dict(
                batch_size=6, num_workers=0, persistent_workers=False, dataset=shared
            ),
            val_evaluator=dict(ann_file=ann_file),
            test_dataloader=None,
            test_evaluator=None,
            test_cfg=None,
            train_cfg=dict(max_epochs=100, val_interval=100),
            optim_wrapper=dict(
                optimizer=dict(_delete_=True, type="AdamW", lr=0.004, weight_decay=0.0)
            ),
            param_scheduler=[
                dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=20),
                dict(type="CosineAnnealingLR", T_max=100, by_epoch=False, begin=0, end=100),
            ],
            default_hooks=dict(checkpoint=None),
        )
    )
    del config.default_hooks.report
    runner = Runner.from_cfg(config)
    runner.train()
    use_exact_statistics(runner)
    assert runner.val_loop.run()["coco/bbox_mAP"] >= 0.8


@torch.no_grad()
def use_exact_statistics(runner: Runner) -> None:
    """Replace batch norm's moving averages, which lag behind, by averages over all images."""
    for module in runner.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # every batch gets the same weight
    runner.model.train()
    for batch in runner.train_dataloader:
        runner.model(**runner.model.data_preprocessor(batch, True), mode="tensor")
