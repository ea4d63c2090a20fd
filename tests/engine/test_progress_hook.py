"""A training logs its progress, compares its validations and draws its curves."""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from PIL import Image

from mixdet import launch
from mixdet.comparison.run_record import read_run
from mixdet.config.read import load_config
from mixdet.engine.hooks import progress_hook
from mixdet.engine.validations import Monitor, Validations, monitor_of
from mixdet.evaluation import CocoDetectionMetric
from mixdet.evaluation.coco_scores import BoxScores
from mixdet.visual.training_figure import draw_training
from tests.engine.test_resume import interrupt, load
from tests.tiny import write_config

pytestmark = pytest.mark.usefixtures("quick")

SINGLE = "train_dataloader['batch_size'] = 1\ndefault_hooks['logger']['interval'] = 1000\n"
ITERATIONS = """
train_cfg = dict(type='IterBasedTrainLoop', max_iters=9, val_interval=4)
train_dataloader['sampler'] = dict(type='InfiniteSampler')
log_processor['by_epoch'] = False
param_scheduler = []
default_hooks['checkpoint'].update(
    by_epoch=False, save_best=['coco/AR_100', 'coco/bbox_mAP'], rule='greater')
"""


def train(folder: Path, images: Path, extra: str = "", epochs: int = 2, **arguments) -> str:
    """Train the tiny config; return the log."""
    launch.train(str(write_config(folder, images, epochs, extra)), **arguments)
    (log,) = folder.glob("work/*/*.log")
    return log.read_text()


@pytest.fixture
def slow_clock(monkeypatch):
    """Give the hook a clock that advances by 4 seconds at each reading.

    The hook reads the clock once per iteration. By this clock, a validation of 4 batches takes 20
    seconds: the hook reads the clock at the start, after each batch, and at the end.
    """
    times = itertools.count(0, 4)
    monkeypatch.setattr(progress_hook, "monotonic", lambda: next(times))


def test_a_line_is_logged_at_least_every_ten_seconds_with_the_time_that_is_left(
    images, tmp_path, slow_clock
):
    log = train(tmp_path, images, SINGLE)
    lines = re.findall(r"Progress: (iteration.*)", log)
    # A line follows every 8 seconds, since one more iteration would make it 12. `LoggerHook` logs
    # the last iteration of each epoch, 14 and 28, and the 8 seconds then start again
    steps = [int(line.split()[1]) for line in lines]
    assert steps == [2, 4, 6, 8, 10, 12, 16, 18, 20, 22, 24, 26]
    # 26 iterations are left, of 4 seconds each
    assert re.fullmatch(
        r"iteration 2 of 28, epoch 1 of 2, loss \d+\.\d{4}, about 2 minutes left, without "
        r"validations",
        lines[0],
    )
    # two iterations of 4 seconds, and a validation of 20 seconds
    assert lines[-1].endswith("about 28 seconds left")
    losses = losses_of(tmp_path)
    assert float(lines[0].split("loss ")[1].split(",")[0]) > 0
    assert losses.keys() == {14, 28}


def test_a_slow_first_iteration_does_not_count_in_the_time_that_is_left(
    images, tmp_path, monkeypatch
):
    """The first iteration also starts the workers and fills the caches."""
    times = itertools.chain([0, 1000], itertools.count(1004, 4))
    monkeypatch.setattr(progress_hook, "monotonic", lambda: next(times))
    first, second, *_ = re.findall(r"Progress: (iteration.*)", train(tmp_path, images, SINGLE))
    assert first.startswith("iteration 1 of 28")
    assert "left" not in first
    assert second.startswith("iteration 3 of 28")
    assert "about 2 minutes left" in second  # 25 iterations of 4 seconds each


def losses_of(folder: Path) -> dict[int, float]:
    (file,) = folder.glob("work/*/vis_data/scalars.json")
    entries = map(json.loads, file.open())
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


def test_slow_iterations_are_all_logged_and_validations_too(images, tmp_path, monkeypatch):
    times = itertools.count(0, 60)
    monkeypatch.setattr(progress_hook, "monotonic", lambda: next(times))
    log = train(tmp_path, images, "default_hooks['logger']['interval'] = 1000\n")
    assert len(re.findall("Progress: iteration", log)) == 2 * 3  # `LoggerHook` logs the 4th
    assert len(re.findall("Progress: validation, batch . of 4", log)) == 2 * 4


def test_no_progress_line_is_logged_while_the_logger_hook_logs_often(images, tmp_path, slow_clock):
    assert "Progress: iteration" not in train(tmp_path, images)


def test_losses_and_scores_in_the_logs_are_the_same_without_the_hook(images, tmp_path, slow_clock):
    records = []
    for name, options in (("with", []), ("without", ["default_hooks.progress=None"])):
        log = train(tmp_path / name, images, SINGLE, cfg_options=options)
        assert ("Progress:" in log) == (name == "with")
        records.append(read_run("row", 0, "", tmp_path / name / "work", {}))
        assert (tmp_path / name / "work" / "progress.png").exists() == (name == "with")
    first, second = records
    assert first.losses == second.losses
    assert (first.metrics, first.curve) == (second.metrics, second.curve)


def test_ap50_of_each_class_stands_below_its_ap():
    scores = BoxScores({}, {"a/b": 0.25, "a_b": math.nan}, {"a/b": 0.5, "a_b": 0.75})
    metric = CocoDetectionMetric.__new__(CocoDetectionMetric)
    metric.scores = scores
    evaluator = SimpleNamespace(metrics=[metric])
    metric.prefix = "coco"
    by_name = progress_hook._class_scores(
        SimpleNamespace(val_loop=SimpleNamespace(evaluator=evaluator))
    )
    assert [*by_name] == ["coco/AP/a_b", "coco/AP50/a_b", "coco/AP/a_b_", "coco/AP50/a_b_"]
    assert [*by_name.values()] == pytest.approx([0.25, 0.5, math.nan, 0.75], nan_ok=True)


def test_a_loop_by_iterations_with_two_metrics_logs_its_progress(images, tmp_path, slow_clock):
    log = train(tmp_path, images, ITERATIONS + SINGLE)
    assert "Progress: iteration 2 of 9, loss" in log
    for iteration in (4, 8, 9):
        assert f"Validation after iteration {iteration}" in log
    assert re.search(r"coco/AP/dark +0\.\d{4}", log)
    best = next((tmp_path / "work").glob("best_coco_AR_100_iter_*.pth"))
    assert f"predict {best} " in log.split("Next steps, with the best checkpoint")[1]


def test_the_next_steps_name_the_files_of_the_run(images, tmp_path):
    options = ["model.bbox_head.use_depthwise=True"]
    log = train(tmp_path, images, cfg_options=options)
    (best,) = (tmp_path / "work").glob("best_*.pth")
    (config,) = (tmp_path / "work").glob("*.py")
    assert load_config(str(config)).model.bbox_head.use_depthwise  # the options are not lost
    commands = [
        shlex.split(line.partition(":")[2])
        for line in log.split("Next steps, with the best checkpoint:\n")[1].splitlines()
    ]
    predict = next(words for words in commands if "predict" in words)
    export = next(words for words in commands if "export" in words)
    assert predict[-2:] == [str(best), str(images / "val2017")]
    assert export[-4:] == [str(config), str(best), "--out", str(tmp_path / "work" / "exported")]


def test_without_a_best_checkpoint_the_last_one_is_named(images, tmp_path):
    log = train(tmp_path, images, "default_hooks['checkpoint']['save_best'] = None\n", epochs=1)
    steps = log.split("Next steps, with the last checkpoint:")[1]
    assert f"predict {tmp_path / 'work' / 'epoch_1.pth'} " in steps


def test_a_resumed_run_keeps_the_validations_before_the_interruption(images, tmp_path):
    train(tmp_path / "whole", images)
    interrupt(tmp_path / "first", images, 6)
    launch.train(str(write_config(tmp_path / "first", images)), resume="auto")
    stored = [
        load(tmp_path / name / "work" / "epoch_2.pth")["message_hub"]["runtime_info"]["progress"]
        for name in ("whole", "first")
    ]
    assert stored[0] == stored[1]
    (entry,) = stored[0]  # the checkpoint is written before the second validation
    assert (entry["iteration"], entry["time"]) == (4, "epoch 1")


def test_a_figure_that_cannot_be_written_leads_to_a_warning(images, tmp_path):
    (tmp_path / "work" / "progress.png").mkdir(parents=True)
    log = train(tmp_path, images)
    assert log.count("ProgressHook:") == 1
    assert "progress.png cannot be written" in log
    assert "Next steps" in log
    assert (tmp_path / "work" / "epoch_2.pth").exists()


def test_only_the_main_process_logs_progress_and_draws_the_figure(
    images, tmp_path, monkeypatch, slow_clock
):
    monkeypatch.setattr(progress_hook, "is_main_process", lambda: False)
    log = train(tmp_path, images, SINGLE, epochs=1)
    assert "Progress:" not in log
    assert not (tmp_path / "work" / "progress.png").exists()


def test_the_figure_is_a_picture_that_changes_with_the_scores():
    losses = {"loss": [3.0, 2.0, 1.5, 1.2], "loss_cls": [2.0, 1.5, 1.0, float("nan")]}
    figures = [
        draw_training(losses, 4, scores)
        for scores in ({}, {"mAP": ([2, 4], [0.1, 0.3])}, {"mAP": ([2, 4], [0.1, 0.2])})
    ]
    assert len(set(figures)) == 3
    assert all(figure.startswith(b"\x89PNG") for figure in figures)
    assert draw_training({}, 0, {}).startswith(b"\x89PNG")


def test_the_figure_in_the_work_folder_can_be_opened(images, tmp_path):
    train(tmp_path, images, epochs=1)
    with Image.open(tmp_path / "work" / "progress.png") as image:
        image.load()
        assert min(image.size) > 400
    assert not list((tmp_path / "work").glob(".progress.png*"))


def test_the_latest_validation_stands_beside_the_best_one():
    validations = Validations()
    monitor = Monitor("coco/bbox_mAP", greater=True)
    validations.add(40, "epoch 1", {"coco/bbox_mAP": 0.25, "coco/bbox_mAP_s": -1})
    title, header, *_ = validations.table(monitor).splitlines()
    assert (title, header.split()) == ("Validation after epoch 1", ["metric", "latest"])
    validations.add(80, "epoch 2", {"coco/bbox_mAP": 0.5, "coco/bbox_mAP_s": 0.1, "name": "x"})
    title, header, *_ = validations.table(monitor).splitlines()
    assert title == "Validation after epoch 2, the best so far by coco/bbox_mAP"
    assert header.endswith("latest  best before (epoch 1)")
    validations.add(120, "epoch 3", {"coco/bbox_mAP": 0.375, "coco/bbox_mAP_s": float("nan")})
    title, header, _, *rows = validations.table(monitor).splitlines()
    assert title == "Validation after epoch 3, not the best so far by coco/bbox_mAP"
    assert header.endswith("latest  best before (epoch 2)")
    assert [row.split() for row in rows] == [["coco/bbox_mAP", "0.3750", "0.5000"]]
    less = Monitor("coco/bbox_mAP", greater=False)
    assert "best before (epoch 1)" in validations.table(less)


def test_the_metric_that_a_hook_monitors_decides_which_validation_is_best():
    scores = {"a": 1.0, "loss": 2.0, "b_acc": 3.0}
    assert monitor_of([], scores) == ("a", True)
    assert monitor_of([], {"loss": 2.0}) == ("loss", False)
    assert monitor_of([], {}) is None
    best = CheckpointHook(save_best=["x", "b_acc"], rule="less")
    assert monitor_of([best], scores) == ("b_acc", False)
    assert monitor_of([CheckpointHook(), EarlyStoppingHook("loss")], scores) == ("loss", False)
