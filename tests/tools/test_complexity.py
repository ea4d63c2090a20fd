"""tools/complexity.py writes its counts as JSON and Markdown, and applies --cfg-options."""

from __future__ import annotations

import json
import subprocess
import sys

from mixdet.analysis.paper import TABLE_1
from tests.conftest import ROOT

NAME = "ssdlite_mobilenet_v1_mix35_coco"
CONFIG = f"configs/table1/{NAME}.py"


def run(*arguments: str) -> str:
    command = [sys.executable, "tools/complexity.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_json_holds_exact_numbers():
    (row,) = json.loads(run(CONFIG, "--format", "json"))
    assert (row["name"], row["params"]) == (NAME, 5_140_341)
    assert row["paper"] == TABLE_1[NAME]._asdict()


def test_stages_are_written_as_markdown():
    lines = run("configs/ssdlite_mixnet_s_digits.py", "--stages", "--format", "markdown")
    assert "ssdlite_mixnet_s_digits" in lines
    assert "3: 48, 5: 48, 7: 48" in lines
    assert "half of what is often called FLOPs" in lines


def test_options_change_the_counts():
    """A width multiplier of 0.5 reduces the parameters. The paper has no such network."""
    whole, half = (
        json.loads(run(CONFIG, "--format", "json", *options))[0]
        for options in ((), ("--cfg-options", "model.backbone.widen_factor=0.5"))
    )
    assert half["params"] < 0.6 * whole["params"]
    assert half["paper"] is None
