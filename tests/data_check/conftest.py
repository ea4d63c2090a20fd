"""Fixtures that check changed copies of the tiny data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixdet.config.read import load_config
from mixdet.data_check import quick_check
from tests.tiny import write_config


@pytest.fixture
def problems_of(images_copy, tmp_path):
    """A function that changes the tiny data and config, and returns the quick check's problems.

    Its arguments are text to append to the config, functions that change the content of the two
    annotation files, and the data loaders to check. The result is a dict from code to problem.
    """

    def run(extra="", train=None, val=None, loaders=("train_dataloader", "val_dataloader")):
        for split, change in (("train2017", train), ("val2017", val)):
            if change is not None:
                rewrite(images_copy / "annotations" / f"instances_{split}.json", change)
        cfg = load_config(write_config(tmp_path, images_copy, extra=extra))
        return {problem.code: problem for problem in quick_check(cfg, loaders)}

    return run


def rewrite(file: Path, change, target: Path | None = None) -> Path:
    """Change the content of an annotation file, and write it to the same or another file."""
    content = json.loads(file.read_text())
    change(content)
    target = target or file
    target.write_text(json.dumps(content))
    return target
