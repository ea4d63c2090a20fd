"""Kill -9 in training and in the writing of checkpoints: nothing half is left, nothing is lost."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from mixdet import launch
from mixdet.compat.checkpoint import load
from mixdet.errors import MixDetError
from tests.engine.test_resume import EMA, assert_same_state, same
from tests.tiny import write_config, write_images

KILLS = 20
EPOCHS = 6


def train(config: str, begun, die: tuple[int, str] | None) -> None:
    """Train, or go on, in a process of its own.

    Args:
        config: Path of the config.
        begun: An event to set where training starts.
        die: Kill this process in its n-th write of a file: within the write (`part`), before the
            renaming (`whole`) or after it (`named`).
    """
    import torch

    torch.set_num_threads(1)
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
    logging.disable(logging.WARNING)
    if die is not None:
        _die_while_writing(*die)
    begun.set()
    launch.train(config, resume="auto")


def _die_while_writing(count: int, moment: str) -> None:
    writes = iter(range(1, 10**6))
    fsync, replace = os.fsync, Path.replace
    due = False

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying_fsync(file: int) -> None:
        nonlocal due
        due = next(writes) == count
        if due and moment == "part":
            os.ftruncate(file, os.fstat(file).st_size // 2)
            kill()
        fsync(file)
        if due and moment == "whole":
            kill()

    def dying_replace(part: Path, target: Path) -> Path:
        done = replace(part, target)
        if due:
            kill()
        return done

    os.fsync, Path.replace = dying_fsync, dying_replace


@pytest.mark.heavy
def test_twenty_kills_change_nothing(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.engine.test_kill"])
    images = write_images(tmp_path / "data")
    rng = random.Random(0)

    def start(folder: Path, die=None):
        """Start or go on; return the process, which has begun."""
        config = next(folder.glob("*.py"), None) or write_config(folder, images, EPOCHS, EMA)
        begun = context.Event()
        process = context.Process(target=train, args=(str(config), begun, die))
        process.start()
        assert begun.wait(120)
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
        die = None if moment == "any time" else (rng.randint(1, 5), moment)
        process = start(folder, die if done < KILLS else None)
        if done < KILLS:
            process.join(None if die else rng.uniform(0, seconds / 2))
            process.kill()
        process.join()
        _every_checkpoint_is_whole_or_refused(folder / "work")
        if process.exitcode == -signal.SIGKILL:
            kills[moment] += 1
            continue
        assert process.exitcode == 0
        end = load(str(folder / f"work/epoch_{EPOCHS}.pth"))
        assert_same_state(end, expected)
        assert same(end["ema_state_dict"], expected["ema_state_dict"])
        if done == KILLS:
            break
        folder = next(folders)
    print(f"killed: {kills}; folders: {folder.name}")
    assert min(kills.values()) == KILLS // len(kills)


def _every_checkpoint_is_whole_or_refused(work: Path) -> None:
    for file in work.glob("*.pth"):
        assert {"state_dict", "meta"} <= load(str(file)).keys()
    for part in work.glob(".*.part"):
        if part.name.startswith(".last_checkpoint"):
            continue
        try:
            load(str(part))
        except MixDetError as error:
            assert part.name in str(error)  # noqa: PT017 - a whole one is as good
