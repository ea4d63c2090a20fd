"""tools/train.py and tools/test.py do what their options say, and refuse wrong arguments."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import hotcoco
import pytest
import torch

from mixdet.evaluation.evaluators import BACKENDS
from tests.conftest import ROOT
from tests.tiny import CLASSES, write_config

pytestmark = pytest.mark.usefixtures("quick")

COCO_CONFIG = "configs/ssdlite_mixnet_m_coco.py"


@pytest.mark.parametrize("name", ["train", "test"])
def test_help_imports_no_large_package(name):
    script = (
        f"import runpy, sys; sys.argv = ['{name}.py', '--help']\n"
        f"try: runpy.run_path('tools/{name}.py', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'mmengine'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--data-root" in done.stdout


def test_the_report_of_training_and_the_test_of_its_checkpoint_agree(
    tool, images, tmp_path, monkeypatch
):
    """Both tools print the same scores, write the same detections, and draw a contact sheet.

    hotcoco scores the validations, and pycocotools the test.
    """
    evaluators, evaluator = [], hotcoco.COCOeval
    monkeypatch.setattr(
        hotcoco, "COCOeval", lambda *arguments: evaluators.append(1) or evaluator(*arguments)
    )
    config = write_config(tmp_path, images)
    code, out, err = tool("train", config, "--cfg-options", "default_hooks.report.sheet=True")
    assert code == 0, err
    assert evaluators
    evaluators.clear()
    work = tmp_path / "work"
    report = out[out.index("Validation after 2 epochs") :]
    assert all(word in report for word in ("mAP50", "mAP75", "small", "medium", "large", *CLASSES))
    assert f"last checkpoint: {work / 'epoch_2.pth'}" in report
    assert f"true and predicted boxes: {work / 'val_sheet.jpg'}" in report
    assert (work / "val_sheet.jpg").stat().st_size > 1000
    assert re.search(r"Epoch\(train\) \[1\]\[2/4\].* eta: \d", out)

    results, sheet = tmp_path / "results.json", tmp_path / "sheet.jpg"
    code, again, err = tool(
        "test", config, work / "epoch_2.pth", "--out", results, "--sheet", sheet
    )
    assert code == 0, err
    assert not evaluators
    table = report.splitlines()[1:6]
    assert "\n".join(table) in again
    assert json.loads(results.read_text()) == json.loads((work / "val_detections.json").read_text())
    assert sheet.stat().st_size > 1000


def test_options_of_train_take_effect(tool, images, tmp_path):
    (tmp_path / "elsewhere").symlink_to(images)
    options = ["--data-root", tmp_path / "elsewhere", "--work-dir", tmp_path / "other"]
    options += ["--seed", 3, "--tracker", "tensorboard", "--amp"]
    config = write_config(tmp_path, tmp_path / "nowhere", epochs=1)
    code, out, err = tool(
        "train", config, *options, "--cfg-options", "train_dataloader.batch_size=7"
    )
    assert code == 0, err
    assert "Epoch(train) [1][2/2]" in out
    assert list((tmp_path / "other").glob("*/vis_data/events.out.tfevents*"))
    if not torch.cuda.is_available():
        assert "CpuAmpOptimWrapper" in out
    checkpoint = torch.load(tmp_path / "other" / "epoch_1.pth", weights_only=True)
    assert checkpoint["meta"]["seed"] == 3


def test_missing_coco_data_are_named(refusal):
    line = refusal("train", COCO_CONFIG, "--data-root", "no/coco")
    assert "no/coco/annotations/instances_train2017.json is missing" in line
    for part in ("instances_val2017.json", "train2017/", "val2017/", "make train"):
        assert part in line


@pytest.mark.parametrize("name", ["train", "test"])
def test_unreadable_configs_are_refused(refusal, tmp_path, name):
    rest = ["checkpoint.pth"] if name == "test" else []
    assert "no such config" in refusal(name, tmp_path / "missing.py", *rest)
    broken = tmp_path / "broken.py"
    for content in ("model = dict(", "_base_ = './missing_base.py'", "a = undefined"):
        broken.write_text(content)
        assert "cannot be read as a config" in refusal(name, broken, *rest)


def test_misspelled_options_are_refused_with_the_right_spelling(refusal, images, tmp_path):
    config = write_config(tmp_path, images)
    assert "key=value" in refusal("train", config, "--cfg-options", "model.backbone")
    line = refusal("train", config, "--cfg-options", "model.backbone.type=MixNett")
    assert "MixNett is not in the mmdet::model registry" in line
    line = refusal("train", config, "--cfg-options", "model.backbone.depht=3")
    assert "unexpected keyword argument 'depht'" in line
    line = refusal("train", config, "--cfg-options", "train_cfg.max_epoch=1")
    assert line.endswith("unexpected keyword argument 'max_epoch'; did you mean max_epochs?")
    line = refusal("train", config, "--cfg-options", "optim_wraper.optimizer.lr=1")
    assert line.endswith("optim_wraper: the config has no such key; did you mean optim_wrapper?")
    line = refusal("train", config, "--cfg-options", "data_root=elsewhere")
    assert line.endswith("or --data-root")
    assert "tools/dist_train.sh" in refusal("train", config, "--launcher", "pytorch")
    assert "error: --launcher slurm" in refusal("train", config, "--launcher", "slurm")


def test_checkpoints_with_code_and_damaged_ones_are_refused(refusal, tool, trained, tmp_path):
    config, checkpoint = trained
    assert "no such checkpoint" in refusal("test", config, tmp_path / "missing.pth")
    assert "no such checkpoint" in refusal("train", config, "--resume", tmp_path / "missing.pth")

    unsafe = tmp_path / "unsafe.pth"
    torch.save(torch.load(checkpoint, weights_only=True) | {"note": Harmless()}, unsafe)
    assert "--trust-checkpoint" in refusal("test", config, unsafe)
    assert "--trust-checkpoint" in refusal("train", config, "--resume", unsafe)
    code, _, err = tool("test", config, unsafe, "--trust-checkpoint")
    assert code == 0, err

    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(checkpoint.read_bytes()[:1000])
    refusal("test", config, damaged)


def strip_annotations(content):
    del content["annotations"]


def empty_annotations(content):
    content["annotations"] = []


def crowds_only(content):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1


@pytest.mark.parametrize("kind", ["CocoDataset", "SafeCocoDataset"])
@pytest.mark.parametrize("change", [strip_annotations, empty_annotations, crowds_only])
def test_images_without_objects_get_detections_but_no_score(
    tool, images_copy, trained, tmp_path, change, kind
):
    file = images_copy / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    out = tmp_path / "found.json"
    options = ["--cfg-options", f"test_dataloader.dataset.type={kind}"]
    code, log, err = tool(
        "test", *trained, "--data-root", images_copy, "--out", out, "--work-dir", tmp_path, *options
    )
    assert code == 0, err
    (line,) = [line for line in log.splitlines() if "nothing to score" in line]
    assert str(file) in line
    assert "Traceback" not in log + err
    assert "mAP50" not in log
    assert f"detections: {out}" in log
    assert not (tmp_path / "test_sheet.jpg").exists()
    _, _, err = tool("test", *trained, "--out", tmp_path / "all.json", "--work-dir", tmp_path)
    assert json.loads(out.read_text()) == json.loads((tmp_path / "all.json").read_text())


@pytest.mark.parametrize("backend", BACKENDS)
def test_ids_that_are_text_give_the_same_scores(tool, images_copy, trained, tmp_path, backend):
    file = images_copy / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    backend = f"test_evaluator.backend={backend}"
    arguments = ["test", *trained, "--data-root", images_copy, "--work-dir", tmp_path / "work"]
    code, before, err = tool(*arguments, "--out", tmp_path / "a.json", "--cfg-options", backend)
    assert code == 0, err
    width = len(str(len(content["images"])))  # leading zeros keep the order of the ids as text
    for entry in content["images"]:
        entry["id"] = f"{entry['id']:0{width}}"
    for entry in content["categories"]:
        entry["id"] = f"class {entry['id']}"
    for entry in content["annotations"]:
        entry["image_id"] = f"{entry['image_id']:0{width}}"
        entry["category_id"] = f"class {entry['category_id']}"
    file.write_text(json.dumps(content))
    code, after, err = tool(*arguments, "--out", tmp_path / "b.json", "--cfg-options", backend)
    assert code == 0, err
    table = re.compile(r"mAP +mAP50.*?AP and AP50 by class.*?bright[^\n]*", re.DOTALL)
    assert table.search(after)[0] == table.search(before)[0]
    assert {entry["image_id"][0] for entry in json.loads((tmp_path / "b.json").read_text())} <= {
        *"01"
    }


class Harmless:
    """An object that torch.load restores only if it may unpickle any class."""


def test_the_option_out_is_refused_for_a_metric_that_writes_no_file(refusal, trained, tmp_path):
    options = ["--out", tmp_path / "a.json", "--cfg-options", "test_evaluator.type=CocoMetric"]
    line = refusal("test", *trained, *options)
    assert "CocoDetectionMetric" in line


@pytest.mark.parametrize("name", ["dist_train.sh", "slurm_train.sh"])
def test_launch_scripts_without_arguments_print_their_usage(name):
    done = subprocess.run([ROOT / "tools" / name], capture_output=True, text=True)
    assert done.returncode == 1
    assert "usage:" in done.stderr


@pytest.mark.parametrize("script", ["dist_train.sh", "slurm_train.sh"])
def test_launch_scripts_start_torchrun(tmp_path, script):
    """The scripts pass all arguments on to tools/train.py, through torchrun.

    A fake `srun` runs the command that it gets. A fake torchrun prints its arguments.
    """
    stand_ins = {
        "torchrun": 'printf "%s\\n" "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT" "$@"',
        "srun": 'while [ "$1" != bash ]; do shift; done; exec "$@"',
        "scontrol": "echo node-1",
    }
    for name, body in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    before = ["gpu"] if script.startswith("slurm") else []
    after = [] if script.startswith("slurm") else ["8"]
    done = subprocess.run(
        [ROOT / "tools" / script, *before, "a config.py", *after, "--seed", "3"],
        env=os.environ
        | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_NODEID": "0",
            "SLURM_JOB_NODELIST": "",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    patience, *arguments = done.stdout.splitlines()
    # torchrun's default is 30 seconds. Slurm kills the run 120 seconds after the stop signal.
    assert 30 < int(patience) < 120
    assert "--nproc-per-node=8" in arguments
    train = arguments.index(str(ROOT / "tools" / "train.py"))
    assert arguments[train + 1 :] == ["a config.py", "--launcher", "pytorch", "--seed", "3"]


@pytest.mark.heavy
@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_in_a_terminal_leaves_a_checkpoint_to_resume_from(images, tmp_path, workers):
    """As in a terminal, the whole process group gets the signal. A second Ctrl-C ends the run."""
    config = write_config(tmp_path, images, epochs=1000)
    command = [sys.executable, "tools/train.py", str(config), "--cfg-options"]
    options = [
        f"train_dataloader.num_workers={workers}",
        f"train_dataloader.persistent_workers={workers > 0}",
        "train_cfg.val_interval=1000",
        "default_hooks.checkpoint.interval=1000",
    ]
    start = {
        "cwd": ROOT,
        "env": os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "start_new_session": True,
    }
    process = subprocess.Popen([*command, *options], **start)
    for line in process.stdout:
        if re.search(r"Epoch\(train\) +\[2\]", line):
            break
    os.killpg(process.pid, signal.SIGINT)
    out = process.stdout.read()
    assert process.wait(60) == 130, out
    assert "Traceback" not in out
    assert "--resume" in out
    stopped = torch.load(tmp_path / "work" / "interrupted.pth", weights_only=True)["meta"]
    assert stopped["iter"] // 4 == stopped["epoch"]

    process = subprocess.Popen([*command, *options, "--resume"], **start)
    for line in process.stdout:
        if "Epoch(train)" in line:
            break
    assert f"[{stopped['epoch'] + 1}][{stopped['iter'] % 4 + 1}/4]" in line
    os.killpg(process.pid, signal.SIGINT)
    for line in process.stdout:
        if "Ctrl-C" in line:
            break
    os.killpg(process.pid, signal.SIGINT)  # the second Ctrl-C ends the run at once
    out = process.stdout.read()
    assert process.wait(60) == 130, out
    assert "Traceback" not in out
