"""A full disk ends the run with a one-line error, and the last complete checkpoint stays."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mixdet import launch
from mixdet.compat.checkpoint import load
from mixdet.errors import MixDetError
from tests.tiny import write_config, write_images

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path, write_images(tmp_path / "data"), epochs=3)


def fill_disk(monkeypatch, epoch: int) -> None:
    """Make the write of an epoch's checkpoint and all later writes fail as on a full disk."""
    fsync, full = os.fsync, False

    def refuse(file: int) -> None:
        nonlocal full
        name = Path(f"/proc/self/fd/{file}").readlink().name
        full = full or name == f".epoch_{epoch}.pth.part"
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    monkeypatch.setattr(os, "fsync", refuse)


def test_a_run_resumes_from_the_checkpoint_before_the_full_disk(config, tmp_path, monkeypatch):
    with monkeypatch.context() as disk:
        fill_disk(disk, epoch=2)
        with pytest.raises(MixDetError) as refusal:
            launch.train(str(config))
    work = tmp_path / "work"
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(f"{work / 'epoch_2.pth'} cannot be written (No space left")
    assert (work / "last_checkpoint").read_text() == str(work / "epoch_1.pth")
    assert load(str(work / "epoch_1.pth"))["meta"]["epoch"] == 1
    assert not (work / "epoch_2.pth").exists()
    assert not list(work.glob(".*.part"))
    launch.train(str(config), resume="auto")
    assert load(str(work / "epoch_3.pth"))["meta"]["epoch"] == 3


def test_a_disk_that_is_full_when_the_log_is_written_ends_the_run_with_one_line(
    config, monkeypatch
):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "scalars.json")

    monkeypatch.setattr("mmengine.visualization.LocalVisBackend._dump", full)
    with pytest.raises(MixDetError, match=r"^scalars\.json: No space left.*resume with --resume$"):
        launch.train(str(config))


@pytest.mark.heavy
def test_a_real_full_disk_ends_the_run_with_one_line(config, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with pytest.raises(MixDetError, match="No space left") as refusal:
            launch.train(str(config), work_dir=str(disk))
        assert "\n" not in str(refusal.value)
        checkpoints = list(disk.glob("*.pth"))
        assert checkpoints, "the disk is too small for a single checkpoint"
        for file in checkpoints:
            assert "state_dict" in load(str(file))
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
