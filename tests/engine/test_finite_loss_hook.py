"""A NaN or infinite loss ends the run with a one-line error, and the checkpoints stay finite."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mixdet import launch
from mixdet.errors import MixDetError
from tests.tiny import write_config

pytestmark = pytest.mark.usefixtures("quick")


@HOOKS.register_module()
class Break(Hook):
    """Make a part of the training NaN or infinite in the second epoch."""

    def __init__(self, part: str) -> None:
        self.part = part

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter != 5:
            return
        model = runner.model
        if self.part == "weight":
            model.backbone.first[3].weight.data[0, 0, 0, 0] = float("nan")
        elif self.part == "overflow":  # the weights stay finite, but the outputs do not
            model.backbone.second.weight.data.fill_(3e38)
        elif self.part == "image":
            data_batch["inputs"] = [image * float("nan") for image in data_batch["inputs"]]
        elif self.part == "loss":  # the box targets are divided by these values
            model.bbox_head.bbox_coder.stds = (0.0, 0.0, 0.0, 0.0)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        backbone = runner.model.backbone
        if self.part in ("step", "statistic") and runner.iter == 7:  # at the end of epoch 2
            broken = backbone.second.bias if self.part == "step" else backbone.first[1].running_var
            broken.data[0] = float("inf")


def config_with_hook(folder, images, part=None) -> str:
    """Write a config with `FiniteLossHook`, and with `Break` if a part is given."""
    hooks = "default_hooks['finite_loss'] = dict(type='FiniteLossHook')\n"
    hooks += f"custom_hooks = [dict(type='Break', part='{part}')]\n" if part else ""
    return str(write_config(folder, images, epochs=2, extra=hooks))


@pytest.mark.parametrize(
    ("part", "origin"),
    [
        ("weight", "output of backbone.first.3 (Conv2d), whose weight is not finite;"),
        ("overflow", "output of backbone.second (Conv2d);"),
        ("image", "first in the images themselves"),
        ("loss", "loss_bbox; first in the loss; the output of every layer is finite"),
    ],
)
def test_the_run_stops_and_names_iteration_images_and_layer(images, tmp_path, part, origin):
    with pytest.raises(MixDetError) as error:
        launch.train(config_with_hook(tmp_path, images, part))
    words = str(error.value)
    assert "\n" not in words
    assert "iteration 6 (epoch 2)" in words
    assert origin in words
    assert words.count(f"{images}/train2017/") == 4  # the images of the batch
    last = tmp_path / "work" / "epoch_1.pth"
    assert f"last checkpoint: {last};" in words
    state = torch.load(last, weights_only=True)["state_dict"]
    assert all(torch.isfinite(value.float()).all() for value in state.values())
    assert not (tmp_path / "work" / "epoch_2.pth").exists()


def test_the_run_stops_before_the_weights_change(images, tmp_path):
    """A debugger at the error sees the weights that led to it."""
    runner = Runner.from_cfg(launch.load_config(config_with_hook(tmp_path, images, "loss")))
    with pytest.raises(MixDetError, match="NaN or infinite in iteration 6"):
        runner.train()
    assert all(torch.isfinite(weight).all() for weight in runner.model.parameters())


@pytest.mark.parametrize(
    ("part", "name"), [("step", "second.bias"), ("statistic", "first.1.running_var")]
)
def test_weights_that_overflowed_in_the_step_are_not_written(images, tmp_path, part, name):
    with pytest.raises(MixDetError, match=rf"1 weights .* backbone\.{name}: no checkpoint"):
        launch.train(config_with_hook(tmp_path, images, part))
    assert (tmp_path / "work" / "epoch_1.pth").exists()
    assert not (tmp_path / "work" / "epoch_2.pth").exists()
    assert (tmp_path / "work" / "last_checkpoint").read_text().endswith("epoch_1.pth")


def test_the_hook_changes_no_weight_of_a_run_with_finite_losses(images, tmp_path):
    launch.train(config_with_hook(tmp_path / "with", images))
    launch.train(str(write_config(tmp_path / "without", images, epochs=2)))
    a, b = (
        torch.load(tmp_path / name / "work" / "epoch_2.pth", weights_only=True)["state_dict"]
        for name in ("with", "without")
    )
    assert all(torch.equal(a[key], b[key]) for key in b)
