"""The config text in a checkpoint is read without running code. Text with code is refused."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mixdet.config.plain import parse_config
from mixdet.config.shipped import shipped_folder

CONFIGS = sorted(shipped_folder("configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_that_mmengine_wrote_is_read(path):
    cfg = Config.fromfile(path)
    assert Config(parse_config(cfg.pretty_text)).to_dict() == cfg.to_dict()


def test_keys_that_are_no_identifiers_are_read():
    cfg = Config({"a": {"b": {9: (3, 5)}, "c": {"9": 3, "type": "Kind"}}})
    assert Config(parse_config(cfg.pretty_text)).to_dict() == cfg.to_dict()


def test_plain_values_of_every_kind_are_read():
    text = "a = dict(b=[1, -2.5, None], c={'x': (True, 'y')}, d=inf)\ne = {3: {1, 2}}"
    want = {
        "a": {"b": [1, -2.5, None], "c": {"x": (True, "y")}, "d": float("inf")},
        "e": {3: {1, 2}},
    }
    assert parse_config(text) == want


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        "a = open('x')",
        "a = dict(type='os.system', command='true')",
        "a = [{'type': 'mmengine.rmtree', 'dir_path': 'data'}]",
        "a = [{'type': 'mmdet.utils.os.system'}]",
        "a = dict(**b)",
        "a = dict({'type': 'os.system'})",
        "a = dict({9: open('x')})",
        "a = dict([('type', 'os.system')])",
        "a = [x for x in (1, 2)]",
        "a = lambda: 1",
        "a.b = 1",
        "a = b = 1",
        "a = (",
        "print(1)",
    ],
)
def test_code_in_a_config_is_refused(text):
    with pytest.raises(ValueError, match=r"line|type"):
        parse_config(text)
