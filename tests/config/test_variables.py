"""A variable that is set after its use is refused. The error lists the keys to set instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from mixdet import launch
from mixdet.config.read import read_config
from mixdet.config.shipped import config_names
from mixdet.config.variables import RUN_KEYS
from mixdet.errors import MixDetError
from tests.conftest import refusal_line

COCO = config_names()["ssdlite_mixnet_m_coco"]
RETINANET = config_names()["retinanet_mixnet_m_fpn_coco"]
SCALES = [f"{split}_dataloader.dataset.pipeline.1.scale" for split in ("train", "val", "test")]


def keys_to_set(config: Path, *options: str) -> set[str]:
    """Return the keys that the error of a refused config or option says to set instead."""
    with pytest.raises(MixDetError, match="has no effect") as refusal:
        read_config(config, options)
    listed = str(refusal.value).partition(": set ")[2].partition(" instead")[0]
    return set(listed.split(", "))


def child(folder: Path, text: str, base: Path = COCO) -> Path:
    path = folder / f"child_of_{base.stem}.py"
    path.write_text(f"_base_ = {str(base)!r}\n{text}\n")
    return path


@pytest.mark.parametrize(
    ("config", "option", "expected"),
    [
        (COCO, "input_size=416", {"model.input_size", *SCALES}),
        (COCO, "vis_backends=[]", {"visualizer.vis_backends"}),
        (COCO, "vis_backends.0.type=A", {"visualizer.vis_backends.0.type"}),
        (COCO, "train_pipeline.1.scale=(64,64)", SCALES[:1]),
        (COCO, "test_pipeline.1.scale=(64,64)", SCALES[1:]),
        (RETINANET, "train_pipeline.3.scale=(64,64)", {SCALES[0].replace("1", "3")}),
        ("ssdlite_mixnet_m_tf_coco", "input_size=416", {"model.input_size", *SCALES}),
        (
            "ssdlite_mobilenet_v2_mmdet_digits",
            "norm_cfg.eps=1e-5",
            {"model.neck.norm_cfg.eps", "model.bbox_head.norm_cfg.eps"},
        ),
        (COCO, "lr=0.1", {"optim_wrapper.optimizer.lr"}),
        (COCO, "data_preprocessor.mean=[0,0,0]", {"model.data_preprocessor"}),
        (COCO, "max_epochs=3", {"train_cfg.max_epochs"}),
        (COCO, "num_classes=3", {"model.bbox_head.num_classes"}),
    ],
)
def test_an_option_without_effect_is_refused(config, option, expected):
    assert keys_to_set(config, option) == set(expected)


def test_setting_the_listed_keys_gives_the_value_of_the_variable():
    """The expected values come from the config file with another number in its text."""
    text = Path(COCO.parent, "_base_/datasets/coco_320.py").read_text()
    changed = Config.fromstring(text.replace("input_size = 320", "input_size = 64"), ".py")
    keys = keys_to_set(COCO, "input_size=64") - {"model.input_size"}
    cfg = read_config(COCO, [f"{key}=(64, 64)" for key in sorted(keys)])
    for split in ("train", "val", "test"):
        name = f"{split}_dataloader"
        assert cfg[name].dataset.pipeline == changed[name].dataset.pipeline


@pytest.mark.parametrize("name", sorted(config_names()))
def test_every_variable_of_every_shipped_config_takes_effect_or_is_refused(name):
    cfg = Config.fromfile(config_names()[name])
    for variable in cfg.keys() - RUN_KEYS:
        value = 7 if isinstance(cfg[variable], int) else "['x']"
        with pytest.raises(MixDetError, match=rf"--cfg-options {variable} "):
            read_config(name, [f"{variable}={value}"])


@pytest.mark.parametrize("option", ["input_size=320", "model.input_size=416", "work_dir=x"])
def test_an_option_that_takes_effect_or_changes_nothing_is_accepted(option):
    read_config(COCO, [option])


def test_an_unknown_key_is_refused():
    with pytest.raises(MixDetError, match="nonsense: the config has no such key"):
        read_config(COCO, ["nonsense=3"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input_size = 416", {"model.input_size", *SCALES}),
        ("vis_backends = []", {"visualizer.vis_backends"}),
        ("train_pipeline = []", {"train_dataloader.dataset.pipeline"}),
        ("lr = 0.1", {"optim_wrapper.optimizer.lr"}),
        (
            "data_root = 'mine/'",
            {
                *(f"{split}_dataloader.dataset.data_root" for split in ("train", "val", "test")),
                *("val_evaluator.ann_file", "test_evaluator.ann_file"),
            },
        ),
        (
            "input_size = 416\ntrain_dataloader = dict(dataset=dict(pipeline=[]))",
            {"model.input_size", *SCALES[1:]},
        ),
    ],
)
def test_a_child_config_that_sets_a_variable_without_effect_is_refused(tmp_path, text, expected):
    path = child(tmp_path, text)
    assert keys_to_set(path) == expected
    # Nothing uses lr. A base may set such a variable, but the last config may not.
    if text != "lr = 0.1":
        assert keys_to_set(child(tmp_path, "x = 1", path)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "input_size = 320",
        "input_size = 416\nmodel = dict(input_size=input_size)",
        "train_pipeline = []\ntrain_dataloader = dict(dataset=dict(pipeline=train_pipeline))",
        "mine = 3",
        "def side(n):\n    return 2 * n\nmodel = dict(input_size=side(160))",
    ],
)
def test_a_variable_that_is_used_is_accepted(tmp_path, text):
    read_config(child(tmp_path, text))


def test_a_grandchild_may_use_the_variable(tmp_path):
    path = child(tmp_path, "input_size = 416")
    read_config(child(tmp_path, "model = dict(input_size=_base_.input_size)", path))


def test_a_json_config_that_sets_a_variable_is_refused(tmp_path):
    path = tmp_path / "child.json"
    path.write_text(f'{{"_base_": "{COCO}", "vis_backends": []}}')
    assert keys_to_set(path) == {"visualizer.vis_backends"}


def test_a_variable_that_an_imported_base_has_used_is_refused(tmp_path):
    """Configs that import their base with `read_base` compute values from variables too."""
    (tmp_path / "base.py").write_text(
        "from mmengine.runner import TestLoop\n"
        "side = 320\npipeline = [dict(type='Resize', scale=(side, side))]\n"
        "test_dataloader = dict(dataset=dict(pipeline=pipeline))\ntest_cfg = dict(type=TestLoop)\n"
    )
    path = tmp_path / "child.py"
    start = "from mmengine.config import read_base\nwith read_base():\n    from .base import *\n"
    expected = {"test_dataloader.dataset.pipeline.0.scale"}
    path.write_text(start + "side = 416\n")
    assert keys_to_set(path) == expected
    path.write_text(start)
    assert keys_to_set(path, "side=416") == expected
    path.write_text(
        start + "side = 416\ntest_dataloader.dataset.pipeline[0].scale = (side, side)\n"
    )
    assert read_config(path).test_dataloader.dataset.pipeline[0].scale == (416, 416)


def test_a_dumped_config_is_read_again_with_its_options(tmp_path):
    """mmengine dumps the variables with their old values beside the values of the options."""
    cfg = read_config(COCO, ["model.input_size=416", "train_dataloader.dataset.data_root=mine/"])
    cfg.dump(tmp_path / "dumped.py")
    again = read_config(tmp_path / "dumped.py")
    assert (again.model.input_size, again.input_size) == (416, 320)
    assert keys_to_set(tmp_path / "dumped.py", "train_pipeline.1.scale=(1,1)") == {SCALES[0]}


def test_evaluation_refuses_an_option_of_the_validation_loader(trained, call_main):
    def test():
        options = ["val_dataloader.batch_size=3"]
        launch.evaluate(*map(str, trained), cfg_options=options)

    from mixdet.errors import run_tool

    line = refusal_line(call_main(lambda: run_tool(test), "test.py"))
    assert "set test_dataloader.batch_size instead" in line
