"""The captured step learns what the plain step learns; what cannot be captured is refused."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.optim import OptimWrapper, build_optim_wrapper

from mixdet.config.read import read_config
from mixdet.engine.amp import amp_wrapper_type
from mixdet.engine.hooks import CudaGraphHook
from mixdet.engine.hooks.cuda_graph import capture
from mixdet.errors import MixDetError
from tests.conftest import ROOT
from tests.synthetic import random_batch

SIZE = 160
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = MODELS.build(read_config(ROOT / "configs/ssdlite_mixnet_s_digits.py").model)
    made.init_weights()
    return made.train()


@gpu
@pytest.mark.parametrize("amp", [False, True])
def test_the_captured_step_is_the_plain_step(model, amp):
    """Losses of four steps, and the statistics after them: in float32 equal but for rounding."""
    captured, plain = model.cuda(), copy.deepcopy(model.cuda())
    batches = [random_batch(4, SIZE, seed) for seed in range(4)]
    for batch in batches:
        for sample in batch["data_samples"]:
            sample.gt_instances.labels %= 10
    cfg = dict(
        type=amp_wrapper_type("OptimWrapper") if amp else "OptimWrapper",
        optimizer=dict(type="SGD", lr=1e-6, momentum=0.9, weight_decay=4e-5),
    )
    wrappers = [build_optim_wrapper(each, cfg) for each in (captured, plain)]
    before = copy.deepcopy(captured.state_dict())
    capture(captured, 4, wrappers[0].optim_context(captured))
    for name, value in captured.state_dict().items():
        assert torch.equal(value, before[name]), name
    for batch in batches:
        losses = [
            each.train_step(copy.deepcopy(batch), wrapper)["loss"]
            for each, wrapper in zip((captured, plain), wrappers, strict=True)
        ]
        torch.testing.assert_close(*losses, rtol=1e-2 if amp else 1e-4, atol=0)
    for (name, value), expected in zip(captured.named_buffers(), plain.buffers(), strict=True):
        tolerance = 1e-2 if amp else 1e-4
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance, msg=name)


@gpu
def test_other_batches_and_tests_do_without_the_graph(model):
    model = model.cuda()
    capture(model, 4, nullcontext())
    inputs = torch.randn(2, 3, SIZE, SIZE, device="cuda")
    for one, other in zip(model.graphed(inputs)[0], model.outputs(inputs)[0], strict=True):
        torch.testing.assert_close(one, other)
    model.eval()
    with torch.no_grad():
        model.test_step(random_batch(4, SIZE))


def run(model, count: int = 1) -> SimpleNamespace:
    """What the hook sees of a runner."""
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), 0.1), accumulative_counts=count)
    return SimpleNamespace(model=model, optim_wrapper=wrapper)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(model):
    with pytest.raises(MixDetError, match="no GPU is seen"):
        CudaGraphHook().before_train(run(model))


@pytest.mark.parametrize("what", ["processes", "model", "accumulative_counts"])
def test_what_cannot_be_captured(model, monkeypatch, what):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    CudaGraphHook().before_train(run(model))
    if what == "processes":
        monkeypatch.setattr("mixdet.engine.hooks.cuda_graph.get_world_size", lambda: 2)
    seen = run(torch.nn.Linear(1, 1) if what == "model" else model, 1 + (what[0] == "a"))
    with pytest.raises(MixDetError, match=what):
        CudaGraphHook().before_train(seen)
