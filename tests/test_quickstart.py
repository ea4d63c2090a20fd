"""The commands and Python code of docs/quickstart.md run in the order of the page."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops

from mixdet.digit_scenes import make_digit_scenes
from tests.conftest import ROOT
from tests.untrained import save_untrained

PAGE = (ROOT / "docs/quickstart.md").read_text()
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", PAGE.replace("\\\n", ""), flags=re.S)
CONFIG = "configs/ssdlite_mixnet_s_digits.py"
CHECKPOINT = Path("work_dirs/quickstart/epoch_3.pth")
FIRST_IMAGE = Path("data/digit_scenes/val/000001.jpg")


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """The working folder: tools and configs, and fewer digit scenes than the page makes."""
    for name in ("tools", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    make_digit_scenes(tmp_path / "data/digit_scenes", train=16, val=8, progress=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> None:
    """Run a command of the page."""
    python, *arguments = shlex.split(command)
    assert python == "python"
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_the_first_block_installs_with_make():
    assert BLOCKS[0] == ("bash", "make install\nsource .venv/bin/activate\n")


def test_the_commands_train_the_config_and_use_its_checkpoint():
    commands = [shlex.split(text) for language, text in BLOCKS[1:] if language == "bash"]
    assert [Path(command[1]).stem for command in commands] == [
        *("make_digit_scenes", "complexity", "train", "test", "predict", "export")
    ]
    assert all(CONFIG in command for command in commands if "configs/" in " ".join(command))
    assert f"train_cfg.max_epochs={CHECKPOINT.stem.removeprefix('epoch_')}" in commands[2]


def test_the_python_blocks_run_in_one_session(checkout, capsys):
    """The test uses random weights, and skips the last block, which needs an exported folder."""
    save_untrained(CHECKPOINT)
    session: dict = {}
    blocks = [text for language, text in BLOCKS if language == "python"]
    for text in blocks[:-1]:
        exec(text.replace("score_thr=0.3", "score_thr=0"), session)
    assert "torch.Size([1, 24, 40, 40])\n" in capsys.readouterr().out
    assert len(session["detections"]) == 100
    with Image.open("boxes.png") as drawn, Image.open(FIRST_IMAGE) as plain:
        assert drawn.size == plain.size == (160, 160)
        assert ImageChops.difference(drawn, plain).getbbox()


@pytest.mark.heavy
def test_every_block_runs_in_order(checkout, tmp_path):
    """The training runs on 16 images instead of 2,000. The later blocks use its checkpoint."""
    session: dict = {}
    for language, text in BLOCKS[1:]:
        if "make_digit_scenes" in text:
            text = f"{text.strip()} --train 16 --val 8"
        run(text) if language == "bash" else exec(text, session)
    assert (CHECKPOINT.parent / "val_sheet.jpg").is_file()
    assert (tmp_path / "outputs/quickstart/predictions.json").is_file()
    with Image.open("boxes.png") as drawn:
        assert drawn.size == (160, 160)
    ours, theirs = (session[name](str(FIRST_IMAGE)) for name in ("detector", "exported"))
    assert ours.names == theirs.names
    torch.testing.assert_close(ours.boxes, theirs.boxes, atol=0.1, rtol=0)


def test_the_image_of_the_readme_is_drawn_by_its_script(tmp_path, monkeypatch):
    """With random weights and fewer scenes, the drawn image is as large as the committed image."""
    data, checkpoint, out = (tmp_path / name for name in ("digits", "epoch_1.pth", "drawn.jpg"))
    make_digit_scenes(data, train=1, val=40, progress=False)
    save_untrained(checkpoint)
    script = str(ROOT / "docs/draw_readme.py")
    arguments = [script, str(checkpoint), "--data", str(data), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(script, run_name="draw_readme")["main"]()
    with Image.open(out) as drawn, Image.open(ROOT / "docs/figures/detections.jpg") as committed:
        assert drawn.size == committed.size
