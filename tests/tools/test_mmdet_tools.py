"""mmdet's train.py trains a config of MixDet, and mmdet's test.py evaluates the checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
import torch

from mixdet.digit_scenes import make_digit_scenes
from tests.conftest import ROOT

TOOLS = Path(mmdet.__file__).parent / ".mim" / "tools"
CONFIG = ROOT / "configs/ssdlite_mixnet_s_digits.py"

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not TOOLS.is_dir(), reason="this mmdet was installed without its tools"),
]


def test_the_tools_of_mmdet_train_and_evaluate_a_config(tmp_path):
    root, work = tmp_path / "scenes", tmp_path / "work"
    make_digit_scenes(root, train=16, val=8, progress=False)
    options = [
        "train_cfg.max_epochs=1",
        f"train_dataloader.dataset.data_root={root}",
        *(f"{split}_dataloader.dataset.data_root={root}" for split in ("val", "test")),
        f"val_evaluator.ann_file={root}/annotations/instances_val.json",
        f"test_evaluator.ann_file={root}/annotations/instances_val.json",
        *(f"{split}_dataloader.num_workers=0" for split in ("train", "val", "test")),
        *(f"{split}_dataloader.persistent_workers=False" for split in ("train", "val", "test")),
    ]

    def run(*command: object) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, command), "--work-dir", work, "--cfg-options", *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    trained = run(TOOLS / "train.py", CONFIG)
    checkpoint = work / "epoch_1.pth"
    assert len(torch.load(checkpoint, weights_only=True)["state_dict"]) > 100
    tested = run("-m", "mixdet.run", TOOLS / "test.py", CONFIG, checkpoint)

    def score(log: str) -> str:
        return log.rsplit("coco/bbox_mAP: ", 1)[1].split()[0]

    assert score(trained) == score(tested)
