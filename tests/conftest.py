"""Fixtures that more than one test file uses."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import mixdet.plugin

import pytest

from mixdet import launch
from tests.tiny import quick_settings, write_config, write_images

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def coco_sample() -> Path:
    """The folder of real COCO images that stands beside the checkout, in COCO's layout."""
    folder = ROOT.parent / "shared" / "coco_sample"
    if not (folder / "annotations" / "instances_val2017.json").is_file():
        message = "the COCO sample is not at ../shared/coco_sample"
        if os.environ.get("MIXDET_REQUIRE_COCO_SAMPLE") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """The folder of a tiny data set in COCO's layout; a test that changes it takes a copy."""
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def trained(images, tmp_path_factory) -> tuple[Path, Path]:
    """A config of the tiny detector, and the checkpoint that its training left."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(folder, images, epochs=1)
    with quick_settings():
        launch.train(str(config))
    return config, folder / "work" / "epoch_1.pth"


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory) -> Path:
    """The folder of two exported folders of the tiny detector, `raw` and `end2end`.

    Each has files for ONNX Runtime and for OpenVINO.
    """
    from mixdet.deploy import export  # here: few tests need what it imports

    out = tmp_path_factory.mktemp("exported")
    export(*trained, out, targets=("onnx", "openvino"), kinds=("raw", "end2end"))
    return out


@pytest.fixture(scope="module")
def quick():
    """Trainings of a second each: see `tests.tiny.quick_settings`."""
    with quick_settings():
        yield


@pytest.fixture(autouse=True)
def _mmdets_scope():
    """A runner leaves its default scope behind; every test starts in mmdet's."""
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")


@pytest.fixture(autouse=True)
def _no_closed_log_files():
    """A runner leaves its log file behind too, and `logging.config.dictConfig` closes it.

    uvicorn calls that. mmengine's `init_weights` would write to the closed file.
    """
    from mmengine.logging import MMLogger

    for name in MMLogger._instance_dict:
        logger = MMLogger.get_instance(name)
        for handler in logger.handlers[:]:
            if isinstance(handler, logging.FileHandler) and handler.stream is None:
                logger.removeHandler(handler)
