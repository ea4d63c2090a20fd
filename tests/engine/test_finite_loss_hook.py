"""A loss that is no number ends the run, says where it came from, and leaves a good checkpoint."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook

from mixdet import launch
from mixdet.errors import MixDetError
from tests.tiny import write_config

pytestmark = pytest.mark.usefixtures("quick")


@HOOKS.register_module()
class Break(Hook):
    """Spoil something in the sixth iteration, the second of the second epoch."""

    def __init__(self, what: str) -> None:
        self.what = what

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter != 5:
            return
        model = runner.model
        if self.what == "weight":
            model.backbone.first[3].weight.data[0, 0, 0, 0] = float("nan")
        elif self.what == "overflow":  # finite weights whose product is not
            model.backbone.second.weight.data.fill_(3e38)
        elif self.what == "image":
            data_batch["inputs"] = [each.float() * float("nan") for each in data_batch["inputs"]]
        elif self.what == "loss":  # targets are divided by these
            model.bbox_head.bbox_coder.stds = (0.0, 0.0, 0.0, 0.0)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        backbone = runner.model.backbone
        if self.what in ("step", "statistic") and runner.iter == 7:  # the second epoch's last
            broken = backbone.second.bias if self.what == "step" else backbone.first[1].running_var
            broken.data[0] = float("inf")


def train(folder, images, what, extra=""):
    hooks = "default_hooks['finite_loss'] = dict(type='FiniteLossHook')\n"
    hooks += f"custom_hooks = [dict(type='Break', what='{what}')]\n" if what else ""
    launch.train(str(write_config(folder, images, epochs=2, extra=hooks + extra)))


@pytest.mark.parametrize(
    ("what", "where"),
    [
        ("weight", "output of backbone.first.3 (Conv2d), whose weight is not finite;"),
        ("overflow", "output of backbone.second (Conv2d);"),
        ("image", "first in the images themselves"),
        ("loss", "loss_bbox; first in the loss; the output of every layer is finite"),
    ],
)
def test_the_run_stops_and_names_iteration_images_and_layer(images, tmp_path, what, where):
    with pytest.raises(MixDetError) as error:
        train(tmp_path, images, what)
    words = str(error.value)
    assert "\n" not in words
    assert "iteration 6 (epoch 2)" in words
    assert where in words
    assert words.count(f"{images}/train2017/") == 4  # the images of the batch
    last = tmp_path / "work" / "epoch_1.pth"
    assert f"last checkpoint: {last};" in words
    state = torch.load(last, weights_only=True)["state_dict"]
    assert all(torch.isfinite(value.float()).all() for value in state.values())
    assert not (tmp_path / "work" / "epoch_2.pth").exists()


def test_the_weights_are_still_those_before_the_step(images, tmp_path, monkeypatch):
    """So a debugger that stands where the error was raised sees what made it."""
    seen = []

    def record(runner, model, *_):
        seen.append(all(torch.isfinite(each).all() for each in model.parameters()))
        return "stopped"

    monkeypatch.setattr("mixdet.engine.hooks.finite_loss_hook._report", record)
    with pytest.raises(MixDetError):
        train(tmp_path, images, "loss")
    assert seen == [True]


@pytest.mark.parametrize(
    ("what", "name"), [("step", "second.bias"), ("statistic", "first.1.running_var")]
)
def test_what_overflowed_in_the_step_is_not_written(images, tmp_path, what, name):
    with pytest.raises(MixDetError, match=rf"1 weights .* backbone\.{name}: no checkpoint"):
        train(tmp_path, images, what)
    assert (tmp_path / "work" / "epoch_1.pth").exists()
    assert not (tmp_path / "work" / "epoch_2.pth").exists()
    assert (tmp_path / "work" / "last_checkpoint").read_text().endswith("epoch_1.pth")


def test_a_run_that_is_in_order_is_left_as_it_is(images, tmp_path):
    train(tmp_path / "with", images, None)
    launch.train(str(write_config(tmp_path / "without", images, epochs=2)))
    a, b = (
        torch.load(tmp_path / name / "work" / "epoch_2.pth", weights_only=True)["state_dict"]
        for name in ("with", "without")
    )
    assert all(torch.equal(a[key], b[key]) for key in b)
