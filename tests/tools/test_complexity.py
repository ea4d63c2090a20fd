"""tools/complexity.py writes its counts as JSON and Markdown, and applies --cfg-options."""

from __future__ import annotations

import json

import pytest

from mixdet.analysis.paper import TABLE_1

NAME = "ssdlite_mobilenet_v1_mix35_coco"
CONFIG = f"configs/table1/{NAME}.py"


@pytest.fixture
def run(tool):
    """Run the tool with arguments that it accepts; return what it prints."""

    def output(*arguments):
        code, out, err = tool("complexity", *arguments)
        assert code == 0, err
        return out

    return output


def test_json_holds_exact_numbers(run):
    (row,) = json.loads(run(CONFIG, "--format", "json"))
    assert (row["name"], row["params"]) == (NAME, 5_140_341)
    assert row["paper"] == TABLE_1[NAME]._asdict()


def test_stages_are_written_as_markdown(run):
    lines = run("configs/ssdlite_mixnet_s_digits.py", "--stages", "--format", "markdown")
    assert "ssdlite_mixnet_s_digits" in lines
    assert "3: 48, 5: 48, 7: 48" in lines
    assert "half of what is often called FLOPs" in lines


def test_options_change_the_counts(run):
    """A width multiplier of 0.5 reduces the parameters. The paper has no such network."""
    whole, half = (
        json.loads(run(CONFIG, "--format", "json", *options))[0]
        for options in ((), ("--cfg-options", "model.backbone.widen_factor=0.5"))
    )
    assert half["params"] < 0.6 * whole["params"]
    assert half["paper"] is None
