"""The commands and scripts of docs/custom_data.md work on images that this test draws."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
from mmdet.registry import MODELS
from safetensors.torch import save_file

from mixdet.config.read import read_config
from tests.conftest import ROOT
from tests.exports import write_coco

PAGE = (ROOT / "docs/custom_data.md").read_text()
BLOCKS = [
    block.strip()
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    if block.split("\n")[0].endswith(".py")  # the first line is "# FILE.py"
]
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("python ")]


@pytest.fixture
def working_folder(tmp_path: Path) -> Path:
    """A folder with the tools and configs of the repository, and the files that the page shows."""
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for block in BLOCKS:
        name = block.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(block + "\n")
    return tmp_path


def run_in(folder: Path, command: str) -> str:
    """Run a command of the page; return what it printed."""
    python, *arguments = command.split()
    assert python == "python"
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_backbone_starts_from_the_weights_file_that_the_page_names(tmp_path):
    network = timm.create_model("mixnet_s")
    file = tmp_path / "model.safetensors"
    save_file(network.state_dict(), file)
    (block,) = (part for part in PAGE.split("```") if "# weights from a file" in part)
    (tmp_path / "own.py").write_text(
        f"_base_ = {str(ROOT / 'configs/_base_/own_data.py')!r}\n"
        + block.removeprefix("python\n").replace("weights/model.safetensors", str(file))
    )
    backbone = MODELS.build(read_config(tmp_path / "own.py").model.backbone)
    backbone.init_weights()
    assert backbone.conv_stem.weight.equal(network.conv_stem.weight)
    (page_of_s,) = re.findall(r"hf download (\S+) model.safetensors", PAGE)
    pages = {page_of_s, *re.findall(r"`(timm/mixnet_\S+)`", PAGE)}
    sizes = ("s", "m", "l", "xl")
    known = {timm.models.get_pretrained_cfg(f"mixnet_{size}").hf_hub_id for size in sizes}
    assert pages == known


@pytest.mark.heavy
def test_all_commands_of_the_page_work(working_folder):
    folder = working_folder
    write_coco(folder / "data/workshop")
    (config,) = (block for block in BLOCKS if block.startswith("# configs/workshop.py"))
    (folder / "configs/workshop.py").unlink()
    init, check, *training, compare = COMMANDS
    assert "nothing is wrong" in run_in(folder, init)
    written = (folder / "configs/workshop.py").read_text()
    assert written.strip() == config.partition("\n")[2]
    assert "nothing is wrong" in run_in(folder, check)
    train, test, predict, other_test = (run_in(folder, command) for command in training)
    for printed in (train, test, other_test):
        assert re.search(r"coco/bbox_mAP: 0\.\d+", printed), printed[-2000:]
    assert len(list(folder.glob("outputs/predict/*.png"))) == 8, predict
    assert "workshop_plain" in run_in(folder, compare)
    assert (folder / "work_dirs/workshop_comparison/report.html").is_file()
    assert (folder / "workshop.html").is_file()
