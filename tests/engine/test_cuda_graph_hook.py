"""A step captured as a CUDA graph equals an ordinary step, or the run is refused."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.optim import OptimWrapper, build_optim_wrapper

from mixdet.config.read import read_config
from mixdet.engine import CudaGraphHook
from mixdet.engine.amp import amp_wrapper_type
from mixdet.engine.hooks.cuda_graph_hook import capture
from mixdet.errors import MixDetError
from tests.conftest import ROOT
from tests.synthetic import random_batch

SIZE = 160
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture
def model():
    torch.manual_seed(0)
    detector = MODELS.build(read_config(ROOT / "configs/ssdlite_mixnet_s_digits.py").model)
    detector.init_weights()
    return detector.train()


@gpu
@pytest.mark.parametrize("amp", [False, True])
def test_the_captured_step_equals_the_ordinary_step(model, amp):
    """The losses of four steps and the final batch norm statistics are equal up to rounding."""
    captured, plain = model.cuda(), copy.deepcopy(model.cuda())
    batches = [random_batch(4, SIZE, seed) for seed in range(4)]
    for batch in batches:
        for sample in batch["data_samples"]:
            sample.gt_instances.labels %= 10
    cfg = dict(
        type=amp_wrapper_type("OptimWrapper") if amp else "OptimWrapper",
        optimizer=dict(type="SGD", lr=1e-6, momentum=0.9, weight_decay=4e-5),
    )
    wrappers = [build_optim_wrapper(network, cfg) for network in (captured, plain)]
    before = copy.deepcopy(captured.state_dict())
    capture(captured, 4, wrappers[0].optim_context(captured))
    for name, value in captured.state_dict().items():
        assert torch.equal(value, before[name]), name
    for batch in batches:
        losses = [
            network.train_step(copy.deepcopy(batch), wrapper)["loss"]
            for network, wrapper in zip((captured, plain), wrappers, strict=True)
        ]
        torch.testing.assert_close(*losses, rtol=1e-2 if amp else 1e-4, atol=0)
    for (name, value), expected in zip(captured.named_buffers(), plain.buffers(), strict=True):
        tolerance = 1e-2 if amp else 1e-4
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance, msg=name)


@gpu
def test_other_batch_sizes_and_test_steps_run_without_the_graph(model):
    model = model.cuda()
    capture(model, 4, nullcontext())
    inputs = torch.randn(2, 3, SIZE, SIZE, device="cuda")
    for output, expected in zip(model.graphed(inputs)[0], model.outputs(inputs)[0], strict=True):
        torch.testing.assert_close(output, expected)
    model.eval()
    with torch.no_grad():
        model.test_step(random_batch(4, SIZE))


def fake_runner(model, count: int = 1) -> SimpleNamespace:
    """A stand-in for a runner with a model and an optimizer."""
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), 0.1), accumulative_counts=count)
    return SimpleNamespace(model=model, optim_wrapper=wrapper)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_run_without_a_gpu_is_refused(model):
    with pytest.raises(MixDetError, match="torch sees no GPU"):
        CudaGraphHook().before_train(fake_runner(model))


@pytest.mark.parametrize("fault", ["processes", "model", "accumulative_counts"])
def test_runs_whose_steps_cannot_be_captured_are_refused(model, monkeypatch, fault):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    CudaGraphHook().before_train(fake_runner(model))
    if fault == "processes":
        monkeypatch.setattr("mixdet.engine.hooks.cuda_graph_hook.get_world_size", lambda: 2)
    network = torch.nn.Linear(1, 1) if fault == "model" else model
    runner = fake_runner(network, count=2 if fault == "accumulative_counts" else 1)
    with pytest.raises(MixDetError, match=fault):
        CudaGraphHook().before_train(runner)
