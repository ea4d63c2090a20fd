"""One switch sets the input size in the model, the anchors and the pipelines."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path

import mixdet.plugin

import pytest
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config

from mixdet.config.input_size import TRANSFORM_SIZES, input_wh, set_input_size
from mixdet.config.read import read_config
from mixdet.config.shipped import config_names
from mixdet.errors import MixDetError
from mixdet.image_size import parse_size
from tests.conftest import ROOT

COCO = config_names()["ssdlite_mixnet_m_coco"]
WIDE, TALL = (320, 192), (192, 320)


def pipelines(cfg: Config) -> list[list[dict]]:
    return [cfg[f"{split}_dataloader"].dataset.pipeline for split in ("train", "val", "test")]


@pytest.mark.parametrize("wh", [(416, 416), WIDE, TALL])
def test_model_anchors_and_pipelines_get_the_size(wh):
    cfg = read_config(COCO, size=wh)
    assert input_wh(cfg) == wh
    assert [steps[1].scale for steps in pipelines(cfg)] == [wh] * 3
    sizes = cfg.model.bbox_head.anchor_generator.min_sizes
    expected = [side * min(wh) / 320 for side in (48, 100, 150, 202, 253, 304)]
    assert sizes == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("size", [320, (320, 320)])
def test_setting_the_size_that_the_config_has_changes_nothing(size):
    before, after = read_config(COCO), read_config(COCO, size=size)
    assert after.to_dict() == before.to_dict()


def test_setting_another_size_and_then_the_first_size_restores_the_config():
    cfg = read_config(COCO, size=WIDE)
    set_input_size(cfg, 320)
    assert cfg.to_dict() == read_config(COCO).to_dict()


@pytest.mark.parametrize("name", sorted(config_names()))
def test_every_shipped_config_takes_another_size(name):
    """If a config keeps the proportions of images, its size is the one that images fit into."""
    cfg = read_config(name)
    old = input_wh(cfg)
    cfg = read_config(name, size=[side // 2 for side in old])
    assert input_wh(cfg) == tuple(side // 2 for side in old)
    assert not [steps for steps in pipelines(cfg) if str(old) in str(steps)]


def test_options_are_applied_after_the_size():
    key = "model.bbox_head.anchor_generator.min_sizes"
    cfg = read_config(COCO, [f"{key}=[1,2,3,4,5,6]"], size=416)
    assert cfg.model.bbox_head.anchor_generator.min_sizes == [1, 2, 3, 4, 5, 6]
    assert cfg.model.input_size == 416


def test_the_documented_values_for_another_size_equal_those_of_the_option(tmp_path):
    page = (ROOT / "docs/custom_data.md").read_text()
    (block,) = (part for part in page.split("```") if "# another size" in part)
    path = tmp_path / "wide.py"
    path.write_text(f"_base_ = {str(COCO)!r}\n" + block.removeprefix("python\n"))
    by_hand, by_switch = read_config(path), read_config(COCO, size=(512, 288))
    assert pipelines(by_hand) == pipelines(by_switch)
    assert by_hand.model.input_size == by_switch.model.input_size == (512, 288)


def with_pipeline(*steps: dict, **model: object) -> Config:
    """Return a config whose three pipelines have these steps after a `Resize` to 320 x 320."""
    cfg = read_config(COCO)
    for split in ("train", "val", "test"):
        resize = dict(type="Resize", scale=(320, 320))
        cfg[f"{split}_dataloader"].dataset.pipeline = [resize, *copy.deepcopy(steps)]
    cfg.model.update(model)
    return cfg


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (dict(type="Mosaic", img_scale=(320, 320)), dict(img_scale=(640, 384))),
        (dict(type="mmdet.CachedMixUp", img_scale=(320, 320)), dict(img_scale=(640, 384))),
        (dict(type="RandomAffine", border=(-160, -160)), dict(border=(-320, -192))),
        (dict(type="Pad", size=(320, 320)), dict(size=(640, 384))),
        (dict(type="Pad", size_divisor=32), dict(size_divisor=32)),
        (dict(type="RandomCrop", crop_size=(160, 160)), dict(crop_size=(320, 192))),
        (
            dict(type="RandomCrop", crop_size=(0.3, 0.7), crop_type="relative"),
            dict(crop_size=(0.3, 0.7)),
        ),
        (dict(type="Resize", scale=320), dict(scale=(640, 384))),
        (dict(type="Resize", scale_factor=2), dict(scale_factor=2)),
        (dict(type="FixShapeResize", width=320, height=320), dict(width=640, height=384)),
        (
            dict(type="RandomChoiceResize", scales=[(320, 320), (160, 320)]),
            dict(scales=[(640, 384), (320, 384)]),
        ),
        (
            dict(type="RandomResize", scale=(320, 320), ratio_range=(0.5, 2.0)),
            dict(scale=(640, 384), ratio_range=(0.5, 2.0)),
        ),
        (
            dict(type="RandomApply", transforms=[dict(type="Pad", size=(320, 320))]),
            dict(transforms=[dict(type="Pad", size=(640, 384))]),
        ),
    ],
    ids=lambda value: value.get("type"),
)
def test_sizes_of_other_transforms_are_scaled(step, expected):
    cfg = with_pipeline(step)
    set_input_size(cfg, (640, 384))
    for steps in pipelines(cfg):
        assert steps[1] == {**step, **expected}


def test_sizes_of_batch_augments_are_height_first():
    """mmdet's `BatchFixedSizePad` takes (height, width)."""
    cfg = with_pipeline()
    augments = [dict(type="BatchFixedSizePad", size=(320, 320))]
    cfg.model.data_preprocessor.batch_augments = augments
    set_input_size(cfg, (640, 384))
    assert cfg.model.data_preprocessor.batch_augments[0]["size"] == (384, 640)


def test_a_wrapped_data_set_and_a_hook_with_a_pipeline_are_found():
    cfg = with_pipeline()
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type="MultiImageMixDataset",
        dataset=inner,
        pipeline=[dict(type="Mosaic", img_scale=(320, 320))],
    )
    switch = [dict(type="Resize", scale=(320, 320))]
    cfg.custom_hooks = [dict(type="PipelineSwitchHook", switch_epoch=1, switch_pipeline=switch)]
    set_input_size(cfg, WIDE)
    assert cfg.train_dataloader.dataset.pipeline[0].img_scale == WIDE
    assert cfg.train_dataloader.dataset.dataset.pipeline[0].scale == WIDE
    assert cfg.custom_hooks[0].switch_pipeline[0].scale == WIDE


def test_every_transform_of_the_table_has_the_arguments_that_the_table_lists():
    """A misspelled argument in the table would leave a size unchanged, without an error."""
    for name, sizes in TRANSFORM_SIZES.items():
        kind = TRANSFORMS.get(name) or MODELS.get(name)
        known = {key for base in kind.__mro__ for key in inspect.signature(base).parameters}
        assert sizes.keys() <= known, name


@pytest.mark.parametrize(
    ("text", "wh"), [("416", (416, 416)), ("320x192", WIDE), ("192X320", TALL), ("33x50", (33, 50))]
)
def test_a_size_is_read_from_text(text, wh):
    assert parse_size(text) == wh


@pytest.mark.parametrize(
    "text",
    ["", "x", "416x", "x416", "320x192x3", "320,192", "3.5", "-320", "0", "31", "320x16"]
    + ["100000", "320x5000", "٣٢٠", "1e3", "large", "9" * 5000],
)
def test_a_text_that_is_no_size_is_refused_in_one_line(text):
    with pytest.raises(MixDetError, match="--size") as refusal:
        parse_size(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "wh", "words"),
    [
        (dict(data_preprocessor=dict(pad_size_divisor=32)), (300, 320), "pad_size_divisor=32 pads"),
        (dict(input_size="large"), WIDE, "model.input_size='large'"),
    ],
)
def test_a_model_that_cannot_take_the_size_is_refused(change, wh, words):
    with pytest.raises(MixDetError, match=words):
        set_input_size(with_pipeline(**change), wh)


def test_a_pipeline_that_does_not_resize_is_refused():
    cfg = read_config(COCO)
    cfg.train_dataloader.dataset.pipeline = [dict(type="PackDetInputs")]
    with pytest.raises(MixDetError, match=r"train_dataloader: no transform .* resizes images"):
        set_input_size(cfg, WIDE)


def test_a_config_without_any_size_is_refused():
    cfg = Config(dict(model=dict(type="RetinaNet")))
    with pytest.raises(MixDetError, match="states no size of images"):
        set_input_size(cfg, WIDE)


def test_proportions_cannot_be_kept_in_a_wide_input():
    """mmcv fits an upright image into 192 x 320 if the scale is (320, 192)."""
    cfg = with_pipeline(dict(type="Resize", scale=(320, 320), keep_ratio=True))
    set_input_size(copy.deepcopy(cfg), 416)
    with pytest.raises(MixDetError, match="keep_ratio=True turns the size"):
        set_input_size(cfg, WIDE)


def test_fixed_strides_of_one_size_are_refused():
    """The strides in mmdet's SSD config hold for one size. RetinaNet's strides fit every size."""
    anchors = dict(type="SSDAnchorGenerator", strides=[16, 32, 64, 107, 160, 320])
    cfg = with_pipeline()
    cfg.model = dict(type="SingleStageDetector", bbox_head=dict(anchor_generator=anchors))
    with pytest.raises(MixDetError, match=r"strides=\[16, .* belong to one size"):
        set_input_size(cfg, 416)
    retinanet = read_config("retinanet_mixnet_m_fpn_coco", size=(800, 512))
    unchanged = read_config("retinanet_mixnet_m_fpn_coco").model
    assert retinanet.model.to_dict() == unchanged.to_dict()
    scales = [s.scale for steps in pipelines(retinanet) for s in steps if s.type == "Resize"]
    assert scales == [(800, 512)] * 3


def test_the_error_for_the_config_variable_input_size_names_the_option_size(tmp_path: Path):
    with pytest.raises(MixDetError, match=r"input_size has no effect.*, or --size"):
        read_config(COCO, ["input_size=416"])
