"""Two processes on a CPU, over gloo: they train and evaluate as one, and none dies in silence."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mixdet.engine import launch
from tests.conftest import ROOT
from tests.tiny import quick, write_config, write_pictures  # noqa: F401

pytestmark = [pytest.mark.usefixtures("quick"), pytest.mark.heavy]

# No batch norm (torch's synchronised one runs on GPUs alone), and a head whose losses are divided
# by the positive anchors of all processes.
PLAIN = """
model['backbone']['plain'] = True
model['bbox_head'].update(
    type='MixConvSSDHead', kernel_sizes=3, norm_cfg=dict(type='GN', num_groups=4))
custom_hooks = [dict(type='NoteLosses', folder='{folder}')]
train_dataloader['batch_size'] = {batch}
"""
EPOCHS = 2


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def run_two(command: list, seconds: float = 280) -> subprocess.CompletedProcess:
    """Run a command that starts two processes, with torchrun on the path and a port of its own."""
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


def plain_config(folder: Path, pictures: Path, batch: int) -> Path:
    return write_config(folder, pictures, EPOCHS, PLAIN.format(folder=folder, batch=batch))


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def assert_close(a: dict, b: dict) -> None:
    assert a["meta"]["iter"] == b["meta"]["iter"]
    for name, weights in a["state_dict"].items():
        torch.testing.assert_close(weights, b["state_dict"][name], rtol=1e-4, atol=1e-5)


def test_two_processes_learn_as_one_with_the_double_batch_and_one_goes_on_from_two(
    pictures, tmp_path
):
    one, two, resumed = (tmp_path / name for name in ("one", "two", "resumed"))
    launch.train(str(plain_config(one, pictures, batch=4)))
    done = run_two([ROOT / "tools/dist_train.sh", plain_config(two, pictures, batch=2), 2])
    assert done.returncode == 0, done.stderr[-3000:]
    expected, got = (load(folder / f"work/epoch_{EPOCHS}.pth") for folder in (one, two))
    assert_close(got, expected)
    alone, first, second = (
        np.loadtxt(file)
        for file in (one / "losses_0.txt", two / "losses_0.txt", two / "losses_1.txt")
    )
    assert not np.allclose(first, second, rtol=1e-3)
    np.testing.assert_allclose((first + second) / 2, alone, rtol=1e-4)

    again = plain_config(resumed, pictures, batch=4)
    launch.train(str(again), resume=str(two / "work/epoch_1.pth"))
    assert_close(load(resumed / f"work/epoch_{EPOCHS}.pth"), expected)


def test_two_processes_evaluate_every_picture_once(pictures, tmp_path):
    fuse = "default_hooks['fuse'] = dict(type='FuseHook')\n"
    config = write_config(tmp_path, pictures, 1, fuse)
    launch.train(str(config))
    checkpoint = tmp_path / "work/epoch_1.pth"
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    odd = ["test_dataloader.dataset.indices=13"]  # a picture is dealt twice, to fill up
    metrics = launch.evaluate(str(config), str(checkpoint), out=str(one), cfg_options=odd)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [config, checkpoint, "--launcher", "pytorch", "--out", two, "--cfg-options", *odd]
    done = run_two([*torchrun, ROOT / "tools/test.py", *arguments])
    assert done.returncode == 0, done.stderr[-3000:]
    expected, got = (json.loads(file.read_text()) for file in (one, two))
    assert len({found["image_id"] for found in expected}) == 13
    for key in ("image_id", "category_id"):
        assert [found[key] for found in got] == [found[key] for found in expected]
    for key in ("bbox", "score"):
        np.testing.assert_allclose(
            [found[key] for found in got], [found[key] for found in expected], atol=1e-4
        )
    assert f"coco/bbox_mAP: {metrics['coco/bbox_mAP']:.4f}" in done.stdout + done.stderr


def test_a_killed_process_ends_the_job_and_is_named(pictures, tmp_path):
    hook = "custom_hooks = [dict(type='KillRank', rank=1, iteration=2)]\n"
    config = write_config(tmp_path, pictures, 1000, hook)
    done = run_two([ROOT / "tools/dist_train.sh", config, 2], seconds=120)
    assert done.returncode != 0
    assert "Signal 9 (SIGKILL) received by PID" in done.stderr
    assert "rank      : 1 (local_rank: 1)" in done.stderr
