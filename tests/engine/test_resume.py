"""A run that is stopped and resumed ends in exactly the state of an uninterrupted run."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
import torch

from mixdet import launch
from tests.conftest import ROOT
from tests.states import assert_same_state, equal
from tests.tiny import write_config

pytestmark = pytest.mark.usefixtures("quick")

EPOCHS = 3
BATCHES = 4  # per epoch


@pytest.fixture(scope="module")
def uninterrupted(quick, images, tmp_path_factory):
    """The last checkpoint of a run that is not stopped.

    `resume="auto"` finds no checkpoint, so the run starts from scratch.
    """
    return run(tmp_path_factory.mktemp("uninterrupted"), images, resume="auto")


def run(folder, images, workers=0, extra="", last=f"epoch_{EPOCHS}.pth", **arguments):
    """Train the tiny config in a folder; return the folder's last checkpoint."""
    config = write_config(folder, images, EPOCHS, extra)
    options = [
        f"train_dataloader.num_workers={workers}",
        f"train_dataloader.persistent_workers={workers > 0}",
    ]
    launch.train(str(config), cfg_options=options, **arguments)
    return load(folder / "work" / last)


def load(path):
    return torch.load(path, weights_only=True)


def logged_losses(folder):
    (log,) = folder.glob("work/*/vis_data/scalars.json")
    entries = map(json.loads, log.open())
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


def last_log(folder) -> str:
    """The log of the last run in a folder."""
    return max(folder.glob("work/*/*.log"), key=lambda file: file.stat().st_mtime_ns).read_text()


def interrupt(folder, images, iteration, validation=False, workers=0, extra="", **arguments):
    """Train until Ctrl-C stops the run in the given iteration; return the checkpoint's path."""
    hook = {"type": "CtrlC", "iteration": iteration, "validation": validation}
    with pytest.raises(SystemExit) as stop:
        run(folder, images, workers, extra=f"{extra}\ncustom_hooks = [{hook}]", **arguments)
    assert stop.value.code == 130
    return folder / "work" / "interrupted.pth"


@pytest.mark.parametrize(
    ("iteration", "validation", "workers", "epochs_done", "iterations_done"),
    [
        (0, False, (0, 0), 0, 1),
        (5, False, (0, 2), 1, 6),
        (7, False, (0, 0), 2, 8),  # the last iteration of the second epoch
        (8, True, (2, 0), 2, 8),  # in the validation after the second epoch
    ],
)
def test_a_run_that_ctrl_c_stopped_resumes_exactly(
    uninterrupted,
    images,
    tmp_path,
    capfd,
    iteration,
    validation,
    workers,
    epochs_done,
    iterations_done,
):
    handler = signal.getsignal(signal.SIGINT)
    path = interrupt(tmp_path / "first", images, iteration, validation, workers[0])
    assert "--resume" in capfd.readouterr().out
    assert (path.parent / "last_checkpoint").read_text() == str(path)
    meta = load(path)["meta"]
    assert (meta["epoch"], meta["iter"]) == (epochs_done, iterations_done)

    (tmp_path / "first").rename(tmp_path / "moved")
    resumed = run(tmp_path / "moved", images, workers[1], resume="auto")
    assert_same_state(resumed, uninterrupted)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_copied_folder_goes_on_from_its_own_checkpoints(uninterrupted, images, tmp_path):
    interrupt(tmp_path / "first", images, 5)
    first, copy = tmp_path / "first" / "work", tmp_path / "copy" / "work"
    shutil.copytree(first, copy)
    before = {file: file.read_bytes() for file in first.rglob("*") if file.is_file()}
    resumed = run(tmp_path / "copy", images, resume="auto")
    assert_same_state(resumed, uninterrupted)
    assert {file: file.read_bytes() for file in first.rglob("*") if file.is_file()} == before
    assert f"Load checkpoint from {copy / 'interrupted.pth'}" in last_log(tmp_path / "copy")
    for checkpoint in copy.glob("*.pth"):
        checkpoint.unlink()
    (copy / "last_checkpoint").write_text(str(first / "interrupted.pth"))
    run(tmp_path / "copy", images, resume="auto")
    assert f"Load checkpoint from {first / 'interrupted.pth'}" in last_log(tmp_path / "copy")


def test_a_run_resumes_exactly_from_a_regular_checkpoint(uninterrupted, images, tmp_path):
    run(tmp_path / "first", images)
    again = run(tmp_path / "second", images, resume=str(tmp_path / "first/work/epoch_1.pth"))
    assert_same_state(again, uninterrupted)


def test_a_config_with_resume_starts_from_scratch_if_there_is_no_checkpoint(
    uninterrupted, images, tmp_path
):
    assert_same_state(run(tmp_path, images, extra="resume = True\n"), uninterrupted)


def test_resume_logs_the_batches_that_are_left(images, tmp_path):
    checkpoint = interrupt(tmp_path / "first", images, 5)
    run(tmp_path / "second", images, resume=str(checkpoint))
    first, second = logged_losses(tmp_path / "first"), logged_losses(tmp_path / "second")
    assert list(first) == [1, 2, 3, 4, 5, 6]
    assert list(second) == [7, 8, 9, 10, 11, 12]
    (log,) = (tmp_path / "second").glob("work/*/*.log")
    assert "Epoch(train) [2][3/4]" in log.read_text()
    assert "Epoch(train) [2][1/4]" not in log.read_text()


def test_resume_is_exact_with_another_batch_sampler(images, tmp_path):
    batches = (
        "train_dataloader['batch_sampler'] = dict(type='AspectRatioBatchSampler', drop_last=True)\n"
    )
    whole = run(tmp_path / "whole", images, extra=batches)
    checkpoint = interrupt(tmp_path / "first", images, 4, extra=batches)
    resumed = run(tmp_path / "second", images, extra=batches, resume=str(checkpoint))
    assert_same_state(resumed, whole)


@pytest.mark.heavy
def test_accumulated_gradients_are_not_lost(images, tmp_path):
    accumulate = "optim_wrapper['accumulative_counts'] = 3\n"
    whole = run(tmp_path / "whole", images, extra=accumulate)
    # The run stops only after the optimizer's step, which follows iteration 6.
    checkpoint = interrupt(tmp_path / "first", images, 4, extra=accumulate)
    assert load(checkpoint)["meta"]["iter"] == 6
    resumed = run(tmp_path / "second", images, extra=accumulate, resume=str(checkpoint))
    assert_same_state(resumed, whole)


def batch_size(size):
    return f"train_dataloader['batch_size'] = {size}\n"


@pytest.mark.parametrize(
    ("before", "iteration", "after", "batches"),
    [
        (4, 5, 7, 2),
        (4, 5, 3, 5),  # with batches of 4 or 3 images, iteration 6 is in epoch 2
        (5, 4, 6, 3),  # both sizes give 3 batches per epoch, but the batches hold other images
    ],
)
def test_a_changed_batch_size_starts_the_epoch_over(
    images, tmp_path, before, iteration, after, batches
):
    checkpoint = interrupt(tmp_path / "a", images, iteration, extra=batch_size(before))
    run(tmp_path / "b", images, extra=batch_size(after), resume=str(checkpoint))
    (log,) = (tmp_path / "b").glob("work/*/*.log")
    text = log.read_text()
    assert "Epoch 2 starts over" in text
    assert f"Epoch(train) [2][1/{batches}]" in text
    assert "Epoch(val) [1]" not in text  # the loaded weights are from epoch 2


def test_an_epoch_that_started_over_can_be_interrupted_too(images, tmp_path):
    changed = batch_size(3)  # 5 batches per epoch
    first = interrupt(tmp_path / "first", images, 5)  # after 1 epoch and 2 batches of 4
    whole = run(tmp_path / "whole", images, extra=changed, resume=str(first))
    second = interrupt(tmp_path / "second", images, 8, extra=changed, resume=str(first))
    resumed = run(tmp_path / "third", images, extra=changed, resume=str(second))
    assert whole["meta"]["iter"] == 6 + 2 * 5
    assert_same_state(resumed, whole)


def test_a_checkpoint_by_iteration_at_the_end_of_an_epoch_resumes_with_the_next_epoch(
    images, tmp_path
):
    hook = "{'type': 'SafeCheckpointHook', 'interval': 4, 'by_epoch': False}"
    extra = f"default_hooks['checkpoint'] = {hook}\n"
    last = f"iter_{EPOCHS * BATCHES}.pth"
    whole = run(tmp_path / "first", images, extra=extra, last=last)
    checkpoint = tmp_path / "first" / "work" / f"iter_{BATCHES}.pth"
    resumed = run(tmp_path / "second", images, extra=extra, last=last, resume=str(checkpoint))
    assert_same_state(resumed, whole)


def test_another_seed_does_not_change_a_resumed_run(uninterrupted, images, tmp_path):
    run(tmp_path / "first", images)
    checkpoint = str(tmp_path / "first/work/epoch_1.pth")
    again = run(tmp_path / "second", images, resume=checkpoint, seed=7)
    assert_same_state(again, uninterrupted)
    other = run(tmp_path / "third", images, seed=7)
    assert not equal(other["state_dict"], uninterrupted["state_dict"])


def test_resuming_the_checkpoint_of_an_epoch_first_validates_that_epoch(images, tmp_path):
    run(tmp_path / "first", images)
    run(tmp_path / "second", images, resume=str(tmp_path / "first/work/epoch_2.pth"))
    (log,) = (tmp_path / "second").glob("work/*/*.log")
    text = log.read_text()
    assert 0 < text.index("Epoch(val) [2][4/4]") < text.index("Epoch(train) [3]")


EMA = "default_hooks['ema'] = dict(type='EMAHook', momentum=0.2)\n"


@pytest.mark.parametrize(("iteration", "validation"), [(5, False), (8, True)])
def test_averaged_weights_are_resumed_too(images, tmp_path, iteration, validation):
    whole = run(tmp_path / "whole", images, extra=EMA)
    interrupt(tmp_path / "first", images, iteration, validation, extra=EMA)
    resumed = run(tmp_path / "first", images, extra=EMA, resume="auto")
    assert_same_state(resumed, whole)
    assert equal(resumed["ema_state_dict"], whole["ema_state_dict"])
    # The checkpoint has the averaged weights in state_dict and the trained ones in ema_state_dict.
    plain = "module.backbone.second.weight"
    average = whole["state_dict"]["backbone.second.weight"]
    assert not torch.equal(whole["ema_state_dict"][plain], average)


def test_the_best_checkpoint_holds_the_averaged_weights_that_were_validated(images, tmp_path):
    run(tmp_path, images, extra=EMA)
    (best,) = (tmp_path / "work").glob("best_*.pth")
    number = load(best)["meta"]["epoch"]
    (log,) = tmp_path.glob("work/*/vis_data/scalars.json")
    scores = [entry for entry in map(json.loads, log.open()) if "coco/AR_100" in entry]
    again = launch.evaluate(str(write_config(tmp_path / "test", images)), str(best))
    for metric in ("coco/bbox_mAP", "coco/AR_100"):
        assert again[metric] == pytest.approx(scores[number - 1][metric], abs=1e-6)


def test_early_stopping_keeps_its_count_when_a_run_is_resumed(images, tmp_path):
    settings = "monitor='coco/bbox_mAP', min_delta=1.0, patience=2"  # no score is ever better
    stopping = f"dict(type='ResumableEarlyStoppingHook', {settings})"
    extra = f"default_hooks['stopping'] = {stopping}\ntrain_cfg['max_epochs'] = 9\n"
    whole = run(tmp_path / "whole", images, extra=extra, last="epoch_3.pth")
    interrupt(tmp_path / "first", images, 9, extra=extra)  # in the third and last epoch
    resumed = run(tmp_path / "first", images, extra=extra, last="epoch_3.pth", resume="auto")
    assert_same_state(resumed, whole)
    # If a run that has stopped early is resumed, it trains no further epoch.
    run(tmp_path / "first", images, extra=extra, last="epoch_3.pth", resume="auto")
    assert not list(tmp_path.rglob("epoch_4.pth"))


def test_the_hooks_shown_in_the_documentation_stop_early_and_average_weights(images, tmp_path):
    page = (ROOT / "docs/custom_data.md").read_text()
    (block,) = (part for part in page.split("```") if "# early stopping, averaged weights" in part)
    base = write_config(tmp_path, images, 30)
    config = tmp_path / "child.py"
    constant = "\noptim_wrapper = dict(optimizer=dict(lr=0.0))\n"  # no score is ever better
    config.write_text(f"_base_ = '{base.name}'\n" + block.removeprefix("python") + constant)
    launch.train(str(config))
    (log,) = tmp_path.glob("work/*/vis_data/scalars.json")
    scores = [entry for entry in map(json.loads, log.open()) if "coco/bbox_mAP" in entry]
    assert len(scores) == 6  # the first score, and five that are not better
    assert "ema_state_dict" in load(tmp_path / "work/epoch_6.pth")
