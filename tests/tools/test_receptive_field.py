"""tools/receptive_field.py draws a figure, prints a table, and refuses wrong arguments."""

from __future__ import annotations


def test_fields_of_trained_configs_are_drawn_and_wrong_arguments_refused(
    tool, refusal, trained, tmp_path
):
    config, checkpoint = trained
    out = tmp_path / "field.svg"
    code, text, _ = tool(
        "receptive_field", config, config, "--checkpoints", checkpoint, checkpoint, "--out", out,
        "--images", 3, "--level", 1,
    )  # fmt: skip
    assert code == 0
    assert "mean of 3 images" in text
    rows = [line for line in text.splitlines() if line.startswith(config.stem)]
    assert len(rows) == 2
    assert rows[0] == rows[1]
    assert " trained " in rows[0]
    assert f" {16} " in rows[0]
    assert out.read_text().count(config.stem) == 4  # a title and a curve for each config

    assert "--checkpoints: 1 for 2 configs" in refusal(
        "receptive_field", config, config, "--checkpoints", checkpoint, "--out", out
    )
    assert "levels are 0 to 1" in refusal("receptive_field", config, "--level", 2, "--out", out)
    assert "ends in .svg" in refusal("receptive_field", config, "--out", tmp_path / "field.png")
