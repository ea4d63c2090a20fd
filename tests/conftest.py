"""Fixtures that more than one test file uses."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

import mixdet.plugin  # noqa: F401 - before any test file imports mmdet

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def coco_sample() -> Path:
    """The folder of real COCO pictures that stands beside the checkout, in COCO's layout."""
    folder = ROOT.parent / "shared" / "coco_sample"
    if not (folder / "annotations" / "instances_val2017.json").is_file():
        message = "the COCO sample is not at ../shared/coco_sample"
        if os.environ.get("MIXDET_REQUIRE_COCO_SAMPLE") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


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
