"""Testing runs a fused copy of the detector and does not change the detector itself."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import HOOKS, MODELS
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from mixdet import launch
from mixdet.config.read import read_config
from mixdet.engine import FuseHook
from mixdet.models.layers import MixedDepthwiseConv2d
from tests.conftest import ROOT
from tests.running_modules import count_batch_norms, record_running_modules
from tests.synthetic import random_batch
from tests.tiny import write_config

FUSE = "default_hooks['fuse'] = dict(type='FuseHook')\n"
EMA = "custom_hooks = [dict(type='EMAHook')]\n"


def modules_of_test_step(model: torch.nn.Module, batch: dict) -> list[torch.nn.Module]:
    with record_running_modules() as modules, torch.no_grad():
        model.test_step(batch)
    return modules


class NormFirst(torch.nn.Sequential):
    """A predictor that runs the norm before the convolution, although the norm is defined later."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv, norm, activate, predict = self
        return predict(activate(conv(norm(x))))


@pytest.fixture
def runner():
    """A stand-in for a runner. The batch norms of its detector have random values."""
    cfg = read_config(ROOT / "configs/ssdlite_mixnet_s_digits.py")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_(0, 0.2)
            module.bias.data.normal_(0, 0.2)
    return SimpleNamespace(model=model, logger=MMLogger.get_current_instance())


def test_a_test_computes_the_same_boxes_without_batch_norms(runner):
    batch, model = random_batch(2, 160), runner.model
    weights = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = model.test_step(batch)
        hook = FuseHook()
        hook.before_test_iter(runner, 0, batch)
        hook.before_test_iter(runner, 1, batch)
        fused = model.test_step(batch)
    for got, want in zip(fused, expected, strict=True):
        got, want = got.pred_instances, want.pred_instances
        assert len(want) == 100
        torch.testing.assert_close(got.bboxes, want.bboxes, rtol=0, atol=1e-2)
        torch.testing.assert_close(got.scores, want.scores, rtol=0, atol=1e-4)
        assert torch.equal(got.labels, want.labels)
    kinds = {type(module) for module in modules_of_test_step(model, batch)}
    assert not kinds & {torch.nn.BatchNorm2d, MixedDepthwiseConv2d}
    hook.after_test_epoch(runner)
    kinds = {type(module) for module in modules_of_test_step(model, batch)}
    assert {torch.nn.BatchNorm2d, MixedDepthwiseConv2d} <= kinds
    assert runner.model is model
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def assert_not_fused(runner) -> None:
    batch = random_batch(1, 160)
    norms = count_batch_norms(modules_of_test_step(runner.model, batch))
    FuseHook().before_test_iter(runner, 0, batch)
    assert count_batch_norms(modules_of_test_step(runner.model, batch)) == norms > 0


def test_a_batch_norm_that_runs_before_its_convolution_is_not_folded(runner):
    """Folding assumes that modules run in the order in which they are defined."""
    head = runner.model.bbox_head
    head.cls_convs[0] = NormFirst(*head.cls_convs[0])
    assert_not_fused(runner)


def test_a_detector_that_cannot_be_fused_is_tested_unfused(runner):
    """With SAME padding, kernels narrower than the stride cannot be merged with wider ones."""
    cfg = read_config(ROOT / "configs/ssdlite_mobilenet_v2_digits.py")
    cfg.model.backbone.update(kernel_sizes=(1, 3, 5), padding="same")
    runner.model = MODELS.build(cfg.model).eval()
    assert_not_fused(runner)


def test_a_model_with_test_time_augmentation_is_tested_unfused(runner):
    """The model wraps a detector and takes lists of augmented images."""
    runner.model = model = DetTTAModel(
        module=runner.model,
        tta_cfg=ConfigDict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=10),
    )
    batch = random_batch(1, 160)
    FuseHook().before_test_iter(runner, 0, batch)
    for sample in batch["data_samples"]:
        sample.set_metainfo(dict(flip=False, flip_direction=None))
    views = {name: [values] for name, values in batch.items()}
    assert count_batch_norms(modules_of_test_step(model, views)) > 0


@HOOKS.register_module()
class CountNormsInTest(Hook):
    """Count the batch norms that run in a test step. Then raise `error` if it is given."""

    def __init__(self, error: str | None = None) -> None:
        self.error = error

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        runner.norms = count_batch_norms(modules_of_test_step(runner.model, data_batch))
        if self.error:
            raise RuntimeError(self.error)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("extra", ["", EMA], ids=["plain", "averaged"])
def test_a_fused_test_of_a_trained_detector_gives_the_same_map(images, tmp_path, extra):
    config = write_config(tmp_path, images, 1, FUSE + extra)
    launch.train(str(config))
    checkpoint = str(tmp_path / "work/epoch_1.pth")
    files = tmp_path / "fused.json", tmp_path / "plain.json"
    fused = launch.evaluate(str(config), checkpoint, out=str(files[0]))
    without = ["default_hooks.fuse=None"]
    plain = launch.evaluate(str(config), checkpoint, out=str(files[1]), cfg_options=without)
    assert fused == plain
    detections, expected = (json.loads(file.read_text()) for file in files)
    assert len(detections) == len(expected) > 0
    for got, want in zip(detections, expected, strict=True):
        assert got["category_id"] == want["category_id"]
        assert got["bbox"] == pytest.approx(want["bbox"], abs=1e-2)
        assert got["score"] == pytest.approx(want["score"], abs=1e-4)


@pytest.mark.usefixtures("quick")
def test_after_an_error_in_a_test_the_detector_can_be_trained(images, tmp_path):
    hooks = "custom_hooks = [dict(type='CountNormsInTest')]\n"
    cfg = launch.load_config(str(write_config(tmp_path, images, 1, FUSE + hooks)))
    runner = Runner.from_cfg(cfg)
    runner.test()
    assert runner.norms == 0
    (count_norms,) = (hook for hook in runner.hooks if isinstance(hook, CountNormsInTest))
    count_norms.error = "the disk is gone"
    with pytest.raises(RuntimeError, match="the disk is gone"):
        runner.test()
    before = copy.deepcopy(runner.model.state_dict())
    runner.train()
    after = runner.model.state_dict()
    assert not torch.equal(after["backbone.second.weight"], before["backbone.second.weight"])
    batch = next(iter(runner.test_dataloader))
    assert count_batch_norms(modules_of_test_step(runner.model, batch)) == 1
