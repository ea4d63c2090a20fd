"""A test computes with the fused copy, where that is the same, and leaves the detector alone."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import HOOKS, MODELS
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from mixdet import launch
from mixdet.config.read import read_config
from mixdet.engine.hooks import FuseHook
from mixdet.models.layers import MixConv2d
from tests.conftest import ROOT
from tests.synthetic import random_batch
from tests.tiny import write_config

FUSE = "default_hooks['fuse'] = dict(type='FuseHook')\n"
EMA = "custom_hooks = [dict(type='EMAHook')]\n"


def computes(model: torch.nn.Module) -> torch.nn.Module:
    """The module that makes a model's test step."""
    return model.test_step.__self__


class NormFirst(torch.nn.Sequential):
    """A predictor that computes in another order than it is defined in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv, norm, activate, predict = self
        return predict(activate(conv(norm(x))))


@pytest.fixture
def run():
    """What a hook sees of a runner: a detector whose batch norms are not all 0 and 1."""
    cfg = read_config(ROOT / "configs/ssdlite_mixnet_s_digits.py")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_(0, 0.2)
            module.bias.data.normal_(0, 0.2)
    return SimpleNamespace(model=model, logger=MMLogger.get_current_instance())


def test_the_same_boxes_from_fewer_steps(run):
    batch, model = random_batch(2, 160), run.model
    weights = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = model.test_step(batch)
        hook = FuseHook()
        hook.before_test_iter(run, 0, batch)
        fused = computes(model)
        hook.before_test_iter(run, 1, batch)
        assert computes(model) is fused is not model
        found = model.test_step(batch)
    for got, want in zip(found, expected, strict=True):
        got, want = got.pred_instances, want.pred_instances
        assert len(want) == 100
        torch.testing.assert_close(got.bboxes, want.bboxes, rtol=0, atol=1e-2)
        torch.testing.assert_close(got.scores, want.scores, rtol=0, atol=1e-4)
        assert torch.equal(got.labels, want.labels)
    kinds = {type(module) for module in fused.modules()}
    assert not kinds & {torch.nn.BatchNorm2d, MixConv2d}
    hook.after_test_epoch(run)
    assert computes(model) is run.model is model
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_batch_norm_that_does_not_follow_its_convolution(run):
    """Folding goes by the order of definition: it would be wrong here, and is not used."""
    model = run.model
    model.bbox_head.cls_convs[0] = NormFirst(*model.bbox_head.cls_convs[0])
    FuseHook().before_test_iter(run, 0, random_batch(1, 160))
    assert computes(model) is model


def test_a_detector_that_cannot_be_fused_is_tested_as_it_is(run):
    """Kernels narrower than the stride under SAME padding have no common center."""
    cfg = read_config(ROOT / "configs/ssdlite_mobilenet_v2_digits.py")
    cfg.model.backbone.update(kernel_sizes=(1, 3, 5), padding="same")
    run.model = model = MODELS.build(cfg.model).eval()
    FuseHook().before_test_iter(run, 0, random_batch(1, 160))
    assert computes(model) is model


def test_a_model_that_is_no_detector_is_left_alone(run):
    run.model = model = DetTTAModel(
        module=run.model, tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=10)
    )
    FuseHook().before_test_iter(run, 0, random_batch(1, 160))
    assert computes(model) is model


@HOOKS.register_module()
class NormsInTest(Hook):
    """Count the batch norms of what computes, after the first batch of a test; perhaps fail."""

    def __init__(self, error: str | None = None) -> None:
        self.error = error

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        runner.norms = norms(computes(runner.model))
        if self.error:
            raise RuntimeError(self.error)


def norms(model: torch.nn.Module) -> int:
    return sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("extra", ["", EMA], ids=["plain", "averaged"])
def test_a_real_run(images, tmp_path, extra):
    config = write_config(tmp_path, images, 1, FUSE + extra)
    launch.train(str(config))
    checkpoint = str(tmp_path / "work/epoch_1.pth")
    files = tmp_path / "fused.json", tmp_path / "plain.json"
    fused = launch.evaluate(str(config), checkpoint, out=str(files[0]))
    without = ["default_hooks.fuse=None"]
    plain = launch.evaluate(str(config), checkpoint, out=str(files[1]), cfg_options=without)
    assert fused == plain
    found, expected = (json.loads(file.read_text()) for file in files)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one["category_id"] == other["category_id"]
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-2)
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)


@pytest.mark.usefixtures("quick")
def test_an_error_in_a_test_leaves_the_detector_to_be_trained(images, tmp_path):
    hook = "custom_hooks = [dict(type='NormsInTest')]\n"
    cfg = launch.load_config(str(write_config(tmp_path, images, 1, FUSE + hook)))
    runner = Runner.from_cfg(cfg)
    runner.test()
    assert (runner.norms, norms(computes(runner.model))) == (0, 1)
    (noted,) = (each for each in runner.hooks if isinstance(each, NormsInTest))
    noted.error = "the disk is gone"
    with pytest.raises(RuntimeError, match="the disk is gone"):
        runner.test()
    before = copy.deepcopy(runner.model.state_dict())
    runner.train()
    after = runner.model.state_dict()
    assert not torch.equal(after["backbone.second.weight"], before["backbone.second.weight"])
    assert computes(runner.model) is runner.model
