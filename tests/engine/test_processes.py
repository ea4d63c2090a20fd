"""Two processes that communicate through gloo on a CPU train and evaluate like one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mixdet import launch
from tests.conftest import ROOT
from tests.tiny import write_config

pytestmark = [pytest.mark.usefixtures("quick"), pytest.mark.heavy]

# The model has no batch norm, since torch's synchronized batch norm runs only on GPUs. The head of
# the model divides the losses by the number of positive anchors in all processes.
PLAIN = """
model['backbone']['plain'] = True
model['bbox_head'].update(
    type='MixConvSSDHead', kernel_sizes=3, norm_cfg=dict(type='GN', num_groups=4))
custom_hooks = [dict(type='RecordLosses', folder='{folder}')]
train_dataloader['batch_size'] = {batch}
"""
EPOCHS = 2


def run_two(command: list, seconds: float = 280) -> subprocess.CompletedProcess:
    """Run a command that starts two processes. They communicate through a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {"PATH": path, "MASTER_PORT": str(port), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        list(map(str, command)),
        env=os.environ | settings | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def plain_config(folder: Path, images: Path, batch: int) -> Path:
    return write_config(folder, images, EPOCHS, PLAIN.format(folder=folder, batch=batch))


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def assert_close(a: dict, b: dict) -> None:
    assert a["meta"]["iter"] == b["meta"]["iter"]
    for name, weights in a["state_dict"].items():
        torch.testing.assert_close(weights, b["state_dict"][name], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def one_process(quick, images, tmp_path_factory):
    """The folder of a run with one process and batches of 4 images."""
    folder = tmp_path_factory.mktemp("one")
    launch.train(str(plain_config(folder, images, batch=4)))
    return folder


@pytest.fixture(scope="module")
def two_processes(images, tmp_path_factory):
    """The folder of a run with two processes and batches of 2 images per process."""
    return train_two(tmp_path_factory.mktemp("two"), images)


def train_two(folder: Path, images: Path, *options: object) -> Path:
    config = plain_config(folder, images, batch=2)
    done = run_two([ROOT / "tools/dist_train.sh", config, 2, *options])
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def last(folder: Path) -> dict:
    return load(folder / f"work/epoch_{EPOCHS}.pth")


def test_two_processes_learn_like_one_process_with_twice_the_batch_size(one_process, two_processes):
    assert_close(last(two_processes), last(one_process))
    alone, first, second = (
        np.loadtxt(file)
        for file in (
            one_process / "losses_0.txt",
            two_processes / "losses_0.txt",
            two_processes / "losses_1.txt",
        )
    )
    assert not np.allclose(first, second, rtol=1e-3)
    np.testing.assert_allclose((first + second) / 2, alone, rtol=1e-4)


def test_one_process_resumes_a_run_of_two_processes(one_process, two_processes, images, tmp_path):
    config = plain_config(tmp_path, images, batch=4)
    launch.train(str(config), resume=str(two_processes / "work/epoch_1.pth"))
    assert_close(last(tmp_path), last(one_process))


def test_two_processes_resume_a_run_of_one_process(one_process, images, tmp_path):
    train_two(tmp_path, images, "--resume", one_process / "work/epoch_1.pth")
    assert len(np.loadtxt(tmp_path / "losses_1.txt")) * EPOCHS == len(
        np.loadtxt(one_process / "losses_0.txt")
    )
    assert_close(last(tmp_path), last(one_process))


def test_one_process_starts_over_an_epoch_in_which_two_processes_were_interrupted(images, tmp_path):
    hook = "custom_hooks = [dict(type='CtrlC', iteration=5)]\ntrain_dataloader['batch_size'] = 2\n"
    config = write_config(tmp_path / "two", images, EPOCHS, hook)
    run_two([ROOT / "tools/dist_train.sh", config, 2])
    stopped = tmp_path / "two/work/interrupted.pth"
    assert load(stopped)["meta"]["iter"] == 6
    launch.train(str(write_config(tmp_path / "one", images, EPOCHS)), resume=str(stopped))
    (log,) = (tmp_path / "one").glob("work/*/*.log")
    text = log.read_text()
    assert "Epoch 2 starts over" in text
    assert "Epoch(train) [2][1/4]" in text


def test_two_processes_evaluate_every_image_once(images, tmp_path):
    fuse = "default_hooks['fuse'] = dict(type='FuseHook')\n"
    config = write_config(tmp_path, images, 1, fuse)
    launch.train(str(config))
    checkpoint = tmp_path / "work/epoch_1.pth"
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    odd = ["test_dataloader.dataset.indices=13"]  # 7 images per process, so one image is used twice
    metrics = launch.evaluate(str(config), str(checkpoint), out=str(one), cfg_options=odd)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [config, checkpoint, "--launcher", "pytorch", "--out", two, "--cfg-options", *odd]
    done = run_two([*torchrun, ROOT / "tools/test.py", *arguments])
    assert done.returncode == 0, done.stderr[-3000:]
    expected, got = (json.loads(file.read_text()) for file in (one, two))
    assert len({detection["image_id"] for detection in expected}) == 13
    for key in ("image_id", "category_id"):
        assert [detection[key] for detection in got] == [row[key] for row in expected]
    for key in ("bbox", "score"):
        np.testing.assert_allclose(
            [detection[key] for detection in got], [row[key] for row in expected], atol=1e-4
        )
    assert f"coco/bbox_mAP: {metrics['coco/bbox_mAP']:.4f}" in done.stdout + done.stderr


def test_two_processes_validate_the_weights_that_are_saved(images, tmp_path):
    """Each process computes batch norm statistics of its own. `SyncBuffersHook` averages them."""
    sync = "default_hooks['sync_buffers'] = dict(type='SyncBuffersHook')\n"
    config = write_config(tmp_path, images, EPOCHS, sync)
    done = run_two([ROOT / "tools/dist_train.sh", config, 2])
    assert done.returncode == 0, done.stderr[-3000:]
    (log,) = tmp_path.glob("work/*/vis_data/scalars.json")
    *_, logged = (entry for entry in map(json.loads, log.open()) if "coco/AR_100" in entry)
    again = launch.evaluate(str(config), str(tmp_path / f"work/epoch_{EPOCHS}.pth"))
    for metric in ("coco/bbox_mAP", "coco/AR_100"):
        assert again[metric] == pytest.approx(logged[metric], abs=1e-6)


def test_a_killed_process_ends_the_job_within_a_minute_and_is_named(images, tmp_path):
    hooks = f"dict(type='RecordLosses', folder='{tmp_path}'), dict(type='KillRank', rank=1, "
    hooks = f"custom_hooks = [{hooks}iteration=2)]\n"
    config = write_config(tmp_path, images, 1000, hooks)
    done = run_two([ROOT / "tools/dist_train.sh", config, 2])
    killed = (tmp_path / "losses_1.txt").stat().st_mtime  # written just before the kill
    assert time.time() - killed < 60
    assert done.returncode != 0
    assert "Signal 9 (SIGKILL) received by PID" in done.stderr
    assert "rank      : 1 (local_rank: 1)" in done.stderr
