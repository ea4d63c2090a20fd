"""Fixtures that more than one test file uses."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import mixdet.plugin

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mixdet import launch
from mixdet.compat import checkpoint
from tests.tiny import quick_settings, write_config, write_images

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def coco_sample() -> Path:
    """The folder `../shared/coco_sample`, which holds real COCO images in COCO's layout."""
    folder = ROOT.parent / "shared" / "coco_sample"
    if not (folder / "annotations" / "instances_val2017.json").is_file():
        message = "the COCO sample is not at ../shared/coco_sample"
        if os.environ.get("MIXDET_REQUIRE_COCO_SAMPLE") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """The folder of a tiny data set in COCO's layout. A test must not change it."""
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def images_copy(images, tmp_path) -> Path:
    """A copy of the tiny data set, which the test may change."""
    return shutil.copytree(images, tmp_path / "data")


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """A photograph, (300, 451, 3) RGB. The width is an odd number."""
    from skimage import data

    return data.chelsea()


@pytest.fixture(scope="session")
def trained(images, tmp_path_factory) -> tuple[Path, Path]:
    """A config of the tiny detector, and the checkpoint of its training."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(folder, images, epochs=1)
    with quick_settings():
        launch.train(str(config))
    return config, folder / "work" / "epoch_1.pth"


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory) -> Path:
    """A folder with two exports of the tiny detector, in the subfolders `raw` and `end2end`.

    Each subfolder has files for ONNX Runtime and for OpenVINO.
    """
    from mixdet.deploy import export  # imported here, since few tests need its many imports

    out = tmp_path_factory.mktemp("exported")
    export(*trained, out, targets=("onnx", "openvino"), kinds=("raw", "end2end"))
    return out


@pytest.fixture(scope="module")
def quick():
    """Make trainings take a second each: see `tests.tiny.quick_settings`."""
    with quick_settings():
        yield


@pytest.fixture
def call_main(monkeypatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """Call a main function in this process; return (exit code, stdout, stderr).

    The arguments are the function, the name of the command, and the arguments of the command.
    """

    def call(main: Callable[[], object], name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capfd.readouterr()
        forget_loggers()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        return end.value.code or 0, out, err

    return call


def refusal_line(result: tuple[int, str, str]) -> str:
    """Return the one-line error message of a command. Its exit code must be 1."""
    code, out, err = result
    assert code == 1, out + err
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in out
    return line


@pytest.fixture(autouse=True, scope="module")
def _mmdet_scope_of_fixtures():
    """Build the fixtures of a module in mmdet's default scope."""
    init_default_scope("mmdet")


@pytest.fixture(autouse=True)
def _mmdet_scope():
    """Start every test in mmdet's default scope. A runner leaves its own scope behind."""
    init_default_scope("mmdet")


@pytest.fixture(autouse=True)
def _no_trust(monkeypatch):
    """Undo `trust_checkpoints` after each test. Otherwise it would hold for all later tests."""
    monkeypatch.setattr(checkpoint, "_mmengine_trusts", False)


@pytest.fixture(autouse=True)
def _no_old_loggers():
    """Start every test without the loggers of earlier runners."""
    forget_loggers()


def forget_loggers() -> None:
    """Make mmengine create its loggers anew, as it does in a new process.

    mmengine names a logger by the time at which its runner starts, in whole seconds. If two runs
    started within a second, the second run would write to the closed log file of the first run.
    """
    from mmengine.logging import MMLogger

    MMLogger._instance_dict.clear()
