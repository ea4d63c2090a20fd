"""tools/compare.py: Ctrl-C, wrong arguments, and configs whose types are classes."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.config.test_types import class_config
from tests.conftest import ROOT
from tests.tiny import write_config, write_images


@pytest.mark.heavy
def test_ctrl_c_leaves_checkpoints_to_resume_from(images, tmp_path):
    config, out = write_config(tmp_path, images), tmp_path / "out"
    slow = ["--cfg-options", "train_cfg.max_epochs=400", "train_cfg.val_interval=1000"]
    command = [sys.executable, "tools/compare.py", config, "--seeds", "1", "--out", out]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}  # the config imports tests.tiny
    process = subprocess.Popen(
        [*command, *slow],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        # Without this, the process would ignore Ctrl-C if a shell runs pytest in the background.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    run = out / "runs" / config.stem / "seed_0"
    deadline = time.monotonic() + 300
    try:
        while not list(run.glob("epoch_*.pth")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert "the same command resumes" in output
    assert process.returncode == 130
    assert "interrupted.pth" in (run / "last_checkpoint").read_text()
    assert json.loads((out / "comparison.json").read_text())["seeds"] == [0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name the configs"),
        (["nothing.py"], "nothing.py: no such config"),
        (["--report", "--out", "nowhere"], "nowhere: no comparison here"),
        (["a.py", "--seeds", "0"], "--seeds must be 1 or more"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(refusal, arguments, words, tmp_path):
    if "--out" not in arguments:
        arguments = [*arguments, "--out", tmp_path]
    assert words in refusal("compare", *arguments)


OWN_BACKBONE = """
from mmdet.registry import MODELS
from tests.tiny import TinyBackbone

@MODELS.register_module()
class OwnBackbone(TinyBackbone):
    pass
"""


@pytest.mark.heavy
def test_configs_whose_types_are_classes_are_compared(tmp_path):
    """A new process with `--report` also finds the classes that only one config imports."""
    data = write_images(tmp_path / "data")
    base, other = (class_config(tmp_path / name, data) for name in ("base", "other"))
    (tmp_path / "own_backbone.py").write_text(OWN_BACKBONE)
    text = other.read_text().replace("type=TinyBackbone", "type=OwnBackbone")
    other.write_text("from own_backbone import OwnBackbone\n" + text)
    out = tmp_path / "out"

    def compare(*arguments):
        command = [sys.executable, "tools/compare.py", "--out", out, *map(str, arguments)]
        path = os.pathsep.join((str(ROOT), str(tmp_path)))
        environment = os.environ | {"PYTHONPATH": path}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = json.loads((out / "rows.json").read_text())
        return {name: (row["params"], row["madds"]) for name, row in rows.items()}

    costs = compare(base, other, "--seeds", 1, "--processes", 2)
    assert list(costs) == [base.stem, other.stem]
    assert len(set(costs.values())) == 1
    first, second = map(json.loads, (out / "runs.jsonl").read_text().splitlines())
    assert first["metrics"] == second["metrics"]
    (out / "rows.json").unlink()
    assert compare("--report") == costs
