"""A run names the weights and the training settings that differ between it and its checkpoint."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from torch import nn

from mixdet import launch
from mixdet.engine import CheckpointFitHook
from mixdet.engine.hooks.checkpoint_fit_hook import changed_settings
from mixdet.errors import MixDetError
from mixdet.models.weights import weight_mismatch
from tests.tiny import write_config, write_images

HOOK = "default_hooks['fit'] = dict(type='CheckpointFitHook')\n"
THREE_CLASSES = HOOK + "model['bbox_head']['num_classes'] = 3\n"
THREE_CLASSES += (
    "train_dataloader['dataset']['metainfo'] = dict(classes=('dark', 'bright', 'gray'))\n"
)
FAULT = r"of another shape: bbox_head\.cls_convs\.0\.0\.weight and 3 more"


@pytest.mark.parametrize(
    ("change", "description"),
    [
        (lambda weights: None, ""),
        (lambda weights: weights.pop("1.bias"), "it lacks 1.bias"),
        (lambda weights: weights.update(z=torch.ones(1)), "it has z, which the model lacks"),
        (lambda weights: weights.update({"0.weight": torch.ones(1)}), "of another shape: 0.weight"),
        (lambda weights: weights.clear(), "it lacks 0.weight and 3 more"),
        (
            lambda weights: weights.update(z=weights.pop("0.bias")),
            "it lacks 0.bias; it has z, which the model lacks",
        ),
    ],
)
def test_weight_mismatch_names_what_differs(change, description):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    weights = dict(model.state_dict())
    change(weights)
    assert weight_mismatch(model, weights) == description


def test_a_wrapped_model_loads_weights_with_and_without_the_prefix_of_a_wrapper():
    """mmdet's `tools/test.py --tta` wraps the model, and other tools save a wrapper's weights."""

    class Model(BaseModel):
        forward = None

    model = Model()
    model.layer = nn.Linear(3, 2)
    wrapped = MODELS.get("DetTTAModel")(module=model)
    runner = SimpleNamespace(model=wrapped, _train_loop=None, _resume=False)
    weights = {f"module.{name}": value for name, value in model.state_dict().items()}
    for checkpoint in ({"state_dict": model.state_dict()}, {"state_dict": weights}):
        CheckpointFitHook().after_load_checkpoint(runner, checkpoint)
    with pytest.raises(MixDetError, match=r"it lacks layer\.weight and 1 more"):
        CheckpointFitHook().after_load_checkpoint(runner, {"state_dict": {}})


def test_weights_for_other_classes_start_a_run_but_do_not_resume_one(quick, tmp_path):
    images = write_images(tmp_path / "images")
    launch.train(str(write_config(tmp_path / "two", images, epochs=1, extra=HOOK)))
    checkpoint = tmp_path / "two" / "work" / "epoch_1.pth"
    launch.evaluate(str(write_config(tmp_path / "same", images, extra=HOOK)), str(checkpoint))

    # The data have only two classes, so the data check would refuse the config before the hook.
    extra = THREE_CLASSES + "default_hooks['data_check'] = None\n"
    three = [write_config(tmp_path / name, images, 2, extra) for name in "ab"]
    with pytest.raises(MixDetError, match=f"does not fit the config: {FAULT}"):
        launch.evaluate(str(three[0]), str(checkpoint))
    with pytest.raises(MixDetError, match=f"does not fit the config: {FAULT}"):
        launch.train(str(three[1]), resume=str(checkpoint))

    start = f"load_from = '{checkpoint}'\noptim_wrapper['optimizer']['lr'] = 0.0\n"
    start += "val_cfg = val_dataloader = val_evaluator = None\n"
    # there is no checkpoint to resume, so the run starts from the weights
    launch.train(str(write_config(tmp_path / "c", images, 1, extra + start)), resume="auto")
    (log,) = (tmp_path / "c").glob("work/*/*.log")
    assert "load_from fits in part" in log.read_text()
    before, after = (
        torch.load(file, weights_only=True)["state_dict"]
        for file in (checkpoint, tmp_path / "c" / "work" / "epoch_1.pth")
    )
    assert torch.equal(before["backbone.second.weight"], after["backbone.second.weight"])
    name = "bbox_head.cls_convs.0.0.weight"
    # with the background, the networks have 3 and 4 class outputs per anchor
    assert before[name].shape[0] * 4 == after[name].shape[0] * 3


def test_changed_settings_of_a_resumed_run_are_named(quick, tmp_path):
    images = write_images(tmp_path / "images")
    config = str(write_config(tmp_path / "first", images, epochs=1, extra=HOOK))
    launch.train(config, cfg_options=["optim_wrapper.optimizer.lr=0.002"])
    checkpoint = str(tmp_path / "first" / "work" / "epoch_1.pth")

    def log_of(name: str, *options: str, **start: str) -> str:
        launch.train(
            config,
            work_dir=str(tmp_path / name),
            cfg_options=["train_cfg.max_epochs=2", f"experiment_name={name}", *options],
            **start,
        )
        (log,) = (tmp_path / name).glob("*/*.log")
        return log.read_text()

    differs = "differs from its checkpoint in these settings: train_cfg.max_epochs=2 (was 1)\n"
    ignored = "no effect, since a resumed run keeps its checkpoint's values: "
    log = log_of("without", resume=checkpoint)
    assert differs in log
    assert f"{ignored}optim_wrapper.optimizer.lr=0.01 (was 0.002)\n" in log
    assert "lr: 2.0000e-03" in log  # the checkpoint's learning rate stays in effect
    assert "lr: 1.0000e-02" not in log
    # the resumed run wrote the values in effect to the config in its checkpoint
    second = str(tmp_path / "without" / "epoch_2.pth")
    assert ignored in log_of("wrong", "train_cfg.max_epochs=3", resume=second)
    third = torch.load(tmp_path / "wrong" / "epoch_3.pth", weights_only=True)["meta"]["cfg"]
    assert "lr=0.002" in third
    right = ("train_cfg.max_epochs=3", "optim_wrapper.optimizer.lr=0.002")
    assert ignored not in log_of("right", *right, resume=second)
    log = log_of("with", "optim_wrapper.optimizer.lr=0.002", resume=checkpoint)
    assert differs in log
    assert ignored not in log
    log = log_of("start", f"load_from={checkpoint}")
    assert "checkpoint's" not in log


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"work_dir": "b"}, []),
        ({"train_cfg": {"max_epochs": 3}}, ["train_cfg.max_epochs=3 (was 2)"]),
        ({"model": {"neck": None}}, ["model.neck=None (was [3, 5])"]),
        ({"model": {"neck": [3, 5], "init_cfg": None}}, []),
        (
            {"param_scheduler": [{"end": 1}, {"end": 2, "by_epoch": False}]},
            ["param_scheduler.1.end=2 (was None)", "param_scheduler.1.by_epoch=False (was None)"],
        ),
    ],
)
def test_only_changed_settings_of_model_data_and_training_are_listed(change, expected):
    first = {
        "model": {"neck": [3, 5]},
        "param_scheduler": [{"end": 1}],
        "train_cfg": {"max_epochs": 2},
        "work_dir": "a",
    }
    assert changed_settings(first | change, first) == expected
