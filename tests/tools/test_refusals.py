"""A user's mistake ends a tool with one line that names the mistake."""

from __future__ import annotations

import re
import shutil
import sys

import pytest
import torch

from mixdet.config.read import read_config
from tests.tiny import write_config

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seed", "-1"], "--seed -1"),
        (["--seed", 2**32], f"--seed {2**32}"),
        (["--minutes", "-3"], "--minutes -3: give a number above 0"),
        (["--minutes", "1", "--cfg-options", "train_cfg.val_interval=2"], "leave --minutes or"),
        (["--cfg-options", "randomness.seed=-1"], "--seed -1"),
        (["--cfg-options", "train_dataloader.batch_size=0"], "got batch_size=0"),
        (["--cfg-options", "val_dataloader.batch_size=few"], "got batch_size=few"),
        (["--cfg-options", "train_dataloader.persistent_workers=True"], "needs num_workers > 0"),
        (["--cfg-options", "custom_imports.imports=no.module"], "import no.module"),
        (
            ["--cfg-options", "train_dataloader.batch_size=64", "train_dataloader.drop_last=True"],
            "14 images cannot fill a batch of 64",
        ),
        (["--cfg-options", "model.bbox_head.num_classes=1"], "num_classes is 1: set it to 2"),
        (["--cfg-options", "model.bbox_head.num_classes=3"], "num_classes is 3: set it to 2"),
        (
            ["--cfg-options", "default_hooks.checkpoint.save_best=coco/mAP"],
            "save_best='coco/mAP': validation gives no such metric: use one of coco/bbox_mAP,",
        ),
        (
            [
                *("--cfg-options", "default_hooks.checkpoint.save_best=coco/AP/dark"),
                "default_hooks.checkpoint.rule=greater",
            ],
            "save_best='coco/AP/dark': validation gives no such metric",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_options_of_training_are_refused(refusal, images, tmp_path, options, words):
    config = write_config(tmp_path, images)
    assert words in refusal("train", config, *options)
    assert not list(tmp_path.rglob("*.pth"))


SHIPPED = "configs/ssdlite_mobilenet_v2_coco.py"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("model.backbone.arch=l", "MixMobileNetV2: .*unexpected keyword argument 'arch'"),
        ("model.backbone.frozen_stages=a", "frozen_stages='a' must be a whole number"),
        ("model.backbone.norm_cfg.type=nope", "MixMobileNetV2: KeyError"),
        ("model.neck.extra_channels=512,256", "SSDNeck: it refuses its arguments"),
        ("optim_wrapper.optimizer.type=Adamm", "optim_wrapper: "),
        ("optim_wrapper.optimizer.lr=fast", "SGD: "),
        ("model.test_cfg.nms.type=nmss", "model.test_cfg=.*nmss"),
        ("model.input_size=256", "of 320x320, but .* model.input_size=256"),
        # The shipped schedules are computed from the number of batches, which is 0 here.
        ("train_dataloader.batch_size=64", "45 images cannot fill a batch of 64"),
    ],
)
def test_wrong_options_of_a_shipped_config_are_refused(
    refusal, coco_sample, tmp_path, option, words
):
    where = ("--data-root", coco_sample, "--work-dir", tmp_path)
    # mmengine keeps one logger per experiment name, so every run needs a new name.
    name = f"experiment_name={tmp_path.name}"
    assert re.search(words, refusal("train", SHIPPED, *where, "--cfg-options", name, option))


@pytest.mark.parametrize("name", ["train", "test", "export", "check_data"])
@pytest.mark.parametrize("size", ["0", "-416", "416,256", "99999"])
def test_a_text_that_is_no_size_is_refused(refusal, tmp_path, name, size):
    files = {"test": ["a.pth"], "export": ["a.pth", "--out", tmp_path / "out"]}
    line = refusal(name, SHIPPED, *files.get(name, []), f"--size={size}")
    assert line.startswith("error: --size")


@pytest.mark.parametrize("name", ["compare", "ablate"])
def test_a_comparison_whose_folder_cannot_be_created_is_refused(refusal, tmp_path, name):
    (tmp_path / "file").write_text("")
    blocks = ("--blocks", 2) if name == "ablate" else ()
    config = "configs/table1_digits/ssdlite_mobilenet_v2_3x3_digits.py"
    assert "--out" in refusal(name, config, *blocks, "--out", tmp_path / "file")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.py", "--minutes", "0"], "--minutes 0: give a number above 0"),
        (["a.py", "--join", "b"], "leave the configs and --report out"),
        (["--join", "b"], "two or more different comparisons"),
        (["--join", "b", "c"], "b: no comparison here"),
    ],
)
def test_wrong_options_of_a_comparison_are_refused(refusal, tmp_path, arguments, words):
    assert words in refusal("compare", *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_config_without_the_needed_keys_is_refused(refusal, trained, tmp_path):
    bare = tmp_path / "bare.py"
    bare.write_text("model = dict(type='SSDLite')\n")
    words = "lacks train_dataloader, optim_wrapper, train_cfg"
    assert words in refusal("train", bare)
    assert "lacks test_dataloader" in refusal("test", bare, trained[1])
    assert "lacks test_dataloader" in refusal("complexity", bare)


def test_an_option_can_change_which_modules_are_imported(images, tmp_path, monkeypatch):
    (tmp_path / "own_module.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    imports = "custom_imports.imports=[mixdet.plugin,tests.tiny,own_module]"
    read_config(write_config(tmp_path, images), [imports])
    assert "own_module" in sys.modules


def test_a_contact_sheet_needs_no_default_hooks(tool, images, trained, tmp_path):
    config = write_config(tmp_path, images, extra="del default_hooks\n")
    code, out, err = tool("test", config, trained[1], "--sheet", tmp_path / "sheet.jpg")
    assert code == 0, out + err
    assert (tmp_path / "sheet.jpg").stat().st_size > 1000


def test_negative_numbers_of_digit_scenes_are_refused(refusal, tmp_path):
    for option in ("--train", "--val", "--seed"):
        words = refusal("make_digit_scenes", tmp_path / "scenes", option, -3)
        assert f"{option[2:]} is -3" in words
    assert not (tmp_path / "scenes").exists()


def test_outputs_that_cannot_be_written_are_refused(refusal, trained, tmp_path):
    config, checkpoint = trained
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "new"
    assert "--work-dir" in refusal("train", config, "--work-dir", inside)
    assert "--out" in refusal("test", config, checkpoint, "--out", inside)
    assert "--sheet" in refusal("test", config, checkpoint, "--sheet", inside)
    assert "--out" in refusal("test", config, checkpoint, "--out", tmp_path)


def test_a_damaged_annotation_file_is_named(refusal, images, tmp_path):
    damaged = shutil.copytree(images, tmp_path / "data")
    file = damaged / "annotations" / "instances_train2017.json"
    file.write_text(file.read_text()[:-40])
    words = refusal("train", write_config(tmp_path, damaged))
    assert f"{file}: not a COCO annotation file" in words


def test_resuming_from_a_file_with_only_weights_is_refused(refusal, trained, tmp_path):
    config, checkpoint = trained
    torch.save(torch.load(checkpoint, weights_only=True)["state_dict"], tmp_path / "bare.pth")
    words = refusal("train", config, "--resume", tmp_path / "bare.pth")
    assert "load_from=" in words


def test_a_checkpoint_of_another_network_can_start_a_run_but_not_resume_it(
    refusal, tool, trained, tmp_path
):
    config, checkpoint = trained
    content = torch.load(checkpoint, weights_only=True)
    first = next(iter(content["state_dict"]))
    del content["state_dict"][first]
    torch.save(content, tmp_path / "other.pth")
    fit = "default_hooks.fit.type=CheckpointFitHook"
    for arguments in (
        ("test", config, tmp_path / "other.pth"),
        ("train", config, "--resume", tmp_path / "other.pth"),
    ):
        words = refusal(*arguments, "--work-dir", tmp_path / "work", "--cfg-options", fit)
        assert f"does not fit the config: it lacks {first}" in words
    # A run may start from this checkpoint. The log then says which weights are missing.
    start = f"load_from={tmp_path / 'other.pth'}"
    options = ("--work-dir", tmp_path / "start", "--cfg-options", fit, start)
    options += ("experiment_name=tiny_start",)  # gives this run a new logger
    code, out, err = tool("train", config, *options)
    assert code == 0, out + err
    (log,) = (tmp_path / "start").glob("*/*.log")
    assert f"the rest starts from scratch: it lacks {first}" in log.read_text()


def test_missing_and_unreadable_configs_are_named(refusal, trained, tmp_path):
    _, checkpoint = trained
    bad = tmp_path / "bad.py"
    bad.write_text("model = nonsense\n")
    assert "nope.py: no such config" in refusal("complexity", "nope.py")
    assert str(bad) in refusal("complexity", bad)
    image = tmp_path / "a.png"
    shutil.copy(next(trained[0].parent.parent.rglob("1.png")), image)
    words = refusal("predict", checkpoint, image, "--config", bad, "--out", tmp_path / "out")
    assert str(bad) in words


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_and_missing_images_are_named(refusal, images, tmp_path, damage, workers):
    data = shutil.copytree(images, tmp_path / "my data")
    for file in (data / "train2017").iterdir():
        file.unlink() if damage == "gone" else file.write_bytes(b"no image")
    config = write_config(tmp_path, data)
    words = refusal("train", config, "--cfg-options", f"train_dataloader.num_workers={workers}")
    assert re.search(rf"{data}/train2017/\d+\.png", words)
    assert ("image files that do not exist" if damage == "gone" else "damaged") in words


def test_a_batch_of_one_is_refused_if_a_feature_map_has_one_cell(refusal, coco_sample, tmp_path):
    words = refusal(
        *("train", "configs/ssdlite_mixnet_s_coco.py", "--data-root", coco_sample),
        *("--work-dir", tmp_path, "--cfg-options", "train_dataloader.batch_size=1"),
        *("train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False"),
    )
    assert "set train_dataloader.batch_size to 2" in words


def test_each_tool_says_what_kind_of_folder_was_given_as_a_checkpoint(
    refusal, trained, exported, tmp_path
):
    config, checkpoint = trained
    work, out = checkpoint.parent, ("--out", tmp_path / "out")
    tools = {
        "test": lambda path: ("test", config, path),
        "export": lambda path: ("export", config, path, *out),
        "resume": lambda path: ("train", config, "--resume", path),
        "load_from": lambda path: ("train", config, "--cfg-options", f"load_from={path}"),
        "verify": lambda path: ("verify", exported / "raw", config, path),
        "receptive_field": lambda path: (
            *("receptive_field", config, "--checkpoints", path, "--out", tmp_path / "field.svg"),
        ),
        "predict": lambda path: ("predict", path, "a.jpg", *out),
        "predict with a config": lambda path: ("predict", path, "a.jpg", *out, "--config", config),
    }
    both = f"the exported folders end2end, raw: name one of them, such as {exported / 'end2end'}"
    for name, arguments in tools.items():
        line = refusal(*arguments(work))
        assert f"{work} cannot be read as a checkpoint: it is a folder with the checkpoint" in line
        assert line.endswith(f"such as {checkpoint}"), name
        line = refusal(*arguments(exported))
        assert line.endswith(both if "predict" in name else "/end2end/model.safetensors"), name
        if "predict" not in name:
            line = refusal(*arguments(exported / "raw"))
            assert "raw cannot be read as a checkpoint: it is an exported folder: name" in line
    line = refusal("verify", work, config, checkpoint)
    assert f"{work} is not an exported folder: it is a folder with the checkpoint" in line
    line = refusal("verify", checkpoint, config, exported / "raw")
    assert f"{checkpoint} is not an exported folder: it is a file: name a folder" in line
    assert not (tmp_path / "out").exists()
