"""`--data-root` replaces the root of all data paths, and missing files are named in one line."""

from __future__ import annotations

import json
from pathlib import Path

import mixdet.plugin

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mixdet.config.data_paths import check_data, set_data_root
from mixdet.errors import MixDetError
from tests.tiny import write_images


@DATASETS.register_module()
class DrawnOnFirstUse(DATASETS.get("CocoDataset")):
    makes_its_data = True


def coco(split, **more):
    return {
        "type": "CocoDataset",
        "data_root": "data/coco/",
        "ann_file": f"annotations/instances_{split}2017.json",
        "data_prefix": {"img": f"{split}2017/"},
        **more,
    }


def config(train=None, ann_file="data/coco/annotations/instances_val2017.json"):
    init_default_scope("mmdet")
    loader = {"dataset": coco("val")}
    metric = {"type": "CocoDetectionMetric", "ann_file": ann_file}
    return Config(
        {
            "train_dataloader": {"dataset": train or coco("train")},
            "val_dataloader": loader,
            "test_dataloader": loader,
            "val_evaluator": metric,
            "test_evaluator": [metric, {"type": "DumpResults", "out_file_path": "a.pkl"}],
        }
    )


def test_data_root_moves_data_sets_in_wrappers_and_metrics():
    inner = {"type": "RepeatDataset", "times": 2, "dataset": coco("train")}
    cfg = config(train={"type": "ConcatDataset", "datasets": [inner, coco("train")]})
    set_data_root(cfg, "/elsewhere")
    text = json.dumps(cfg.to_dict())
    assert "data/coco" not in text
    assert text.count('"data_root": "/elsewhere"') == 4
    ann_file = "/elsewhere/annotations/instances_val2017.json"
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator[0].ann_file == ann_file
    assert cfg.val_dataloader.dataset.ann_file == "annotations/instances_val2017.json"
    set_data_root(cfg, "third")
    assert cfg.test_evaluator[0].ann_file == "third/annotations/instances_val2017.json"


def test_data_root_refuses_a_config_with_paths_that_it_cannot_move():
    with pytest.raises(MixDetError, match=r"val_evaluator\.ann_file .*truth\.json"):
        set_data_root(config(ann_file="other/truth.json"), "/elsewhere")
    rootless = coco("train")
    del rootless["data_root"]
    with pytest.raises(MixDetError, match=r"train_dataloader\.dataset has no data_root"):
        set_data_root(config(train=rootless), "/elsewhere")


def test_the_message_of_a_missing_file_names_it_and_the_expected_layout(tmp_path):
    loaders = ("train_dataloader", "val_dataloader")
    cfg = config()
    with pytest.raises(MixDetError) as error:
        check_data(cfg, loaders)
    text = str(error.value)
    assert text.startswith("data/coco/annotations/instances_train2017.json is missing")
    layout = (
        "data/coco/ must hold annotations/instances_train2017.json, train2017/, "
        "annotations/instances_val2017.json, val2017/"
    )
    assert layout in text
    assert "make train" in text
    assert "\n" not in text

    root = write_images(tmp_path / "coco")
    set_data_root(cfg, str(root))
    check_data(cfg, loaders)
    (root / "val2017").rename(root / "val")
    with pytest.raises(MixDetError, match=r"val2017 is missing \(val_dataloader\.dataset\)"):
        check_data(cfg, loaders)
    check_data(cfg, ("train_dataloader",))


def test_data_sets_that_draw_their_images_or_are_remote_are_not_checked():
    check_data(config(train=coco("train", type="DrawnOnFirstUse")), ("train_dataloader",))
    check_data(config(train=coco("train", data_root="s3://bucket/")), ("train_dataloader",))


@pytest.mark.parametrize("root", ["data", "."])
def test_data_root_may_be_a_parent_of_the_old_one(root):
    cfg = Config(
        dict(
            val_dataloader=dict(
                dataset=dict(type="CocoDataset", data_root="data/coco/", ann_file="a/val.json")
            ),
            val_evaluator=dict(type="CocoDetectionMetric", ann_file="data/coco/a/val.json"),
        )
    )
    set_data_root(cfg, root)
    assert Path(cfg.val_evaluator.ann_file) == Path(root, "a/val.json")
