"""A training that is killed with SIGKILL at any time leaves only complete checkpoints.

Some kills happen while a checkpoint is written. A resumed training ends in the same state as a
training that is not killed.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from mixdet import launch
from mixdet.compat.checkpoint import load
from mixdet.errors import MixDetError
from tests.engine.test_resume import EMA
from tests.states import assert_same_state, equal
from tests.tiny import write_config, write_images

KILLS = 20
EPOCHS = 6


def train(config: str, started, kill_at: tuple[int, str] | None) -> None:
    """Train, or resume the last checkpoint. A child process runs this function.

    Args:
        config: Path of the config.
        started: An event that is set when training starts.
        kill_at: (n, moment): this process kills itself at its n-th write of a file. The moment is
            `part` (half of the file is written), `whole` (all of it is written, but the file is not
            renamed yet) or `named` (the file is renamed). With None the process is not killed.
    """
    import torch

    torch.set_num_threads(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    logging.disable(logging.WARNING)
    if kill_at is not None:
        _kill_while_writing(*kill_at)
    started.set()
    launch.train(config, resume="auto")


def _kill_while_writing(count: int, moment: str) -> None:
    writes = iter(range(1, 10**6))
    fsync, replace = os.fsync, Path.replace
    due = False

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fsync_or_kill(file: int) -> None:
        nonlocal due
        due = next(writes) == count
        if due and moment == "part":
            os.ftruncate(file, os.fstat(file).st_size // 2)
            kill()
        fsync(file)
        if due and moment == "whole":
            kill()

    def replace_or_kill(part: Path, target: Path) -> Path:
        path = replace(part, target)
        if due:
            kill()
        return path

    os.fsync, Path.replace = fsync_or_kill, replace_or_kill


@pytest.mark.heavy
def test_a_training_that_is_killed_twenty_times_ends_in_the_same_state(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.engine.test_kill"])
    images = write_images(tmp_path / "data")
    rng = random.Random(0)

    def start(folder: Path, kill_at=None):
        """Start or resume a training; return the process when training starts."""
        config = next(folder.glob("*.py"), None) or write_config(folder, images, EPOCHS, EMA)
        started = context.Event()
        process = context.Process(target=train, args=(str(config), started, kill_at))
        process.start()
        assert started.wait(120)
        return process

    whole = tmp_path / "whole"
    process, clock = start(whole), time.monotonic()
    process.join()
    seconds = time.monotonic() - clock
    assert process.exitcode == 0
    expected = load(str(whole / f"work/epoch_{EPOCHS}.pth"))

    kills = {"part": 0, "whole": 0, "named": 0, "any time": 0}
    folders = iter(tmp_path / f"run{number}" for number in range(KILLS + 1))
    folder = next(folders)
    while True:
        done = sum(kills.values())
        moment = list(kills)[done % len(kills)]
        kill_at = None if moment == "any time" else (rng.randint(1, 5), moment)
        process = start(folder, kill_at if done < KILLS else None)
        if done < KILLS:
            process.join(None if kill_at else rng.uniform(0, seconds / 2))
            process.kill()
        process.join()
        for file in (folder / "work").glob("*.pth"):
            assert {"state_dict", "meta"} <= load(str(file)).keys()
        parts = (folder / "work").glob(".*.pth.part")
        assert all(map(is_whole_or_refused_by_name, parts))
        if process.exitcode == -signal.SIGKILL:
            kills[moment] += 1
            continue
        assert process.exitcode == 0
        end = load(str(folder / f"work/epoch_{EPOCHS}.pth"))
        assert_same_state(end, expected)
        assert equal(end["ema_state_dict"], expected["ema_state_dict"])
        if done == KILLS:
            break
        folder = next(folders)
    print(f"killed: {kills}; folders: {folder.name}")
    assert min(kills.values()) == KILLS // len(kills)


def is_whole_or_refused_by_name(part: Path) -> bool:
    try:
        load(str(part))
    except MixDetError as error:
        return part.name in str(error)
    return True
