"""Mixed precision on a CPU computes in bfloat16. If bfloat16 is emulated, a warning is logged."""

from __future__ import annotations

import logging

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mixdet.engine import CpuAmpOptimWrapper, amp
from mixdet.errors import MixDetError
from tests.tiny import write_config, write_images


def test_a_step_on_the_cpu_computes_in_bfloat16_and_keeps_float32_weights(tmp_path):
    """The weights stay finite, and the loss is close to the loss in float32."""
    cfg = Config.fromfile(write_config(tmp_path, write_images(tmp_path / "data")))
    init_default_scope("mmdet")
    model = MODELS.build(cfg.model)
    model.backbone.first[-1].p = 0.0  # dropout would hide the difference
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    dtypes = []
    model.bbox_head.cls_convs[0].register_forward_hook(lambda *args: dtypes.append(args[2].dtype))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    wrapper = CpuAmpOptimWrapper(optimizer=optimizer)
    before = [parameter.detach().clone() for parameter in model.parameters()]

    data = model.data_preprocessor(batch, True)
    exact, _ = model.parse_losses(model(**data, mode="loss"))
    with wrapper.optim_context(model):
        loss, _ = model.parse_losses(model(**data, mode="loss"))
    wrapper.update_params(loss)

    assert dtypes == [torch.float32, torch.bfloat16]
    torch.testing.assert_close(loss.float(), exact, rtol=0.02, atol=0)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    changed = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert all(changed)


@pytest.mark.parametrize(
    ("device", "chosen"), [("cpu", "CpuAmpOptimWrapper"), ("cuda", "AmpOptimWrapper")]
)
def test_the_device_chooses_the_wrapper(monkeypatch, device, chosen):
    monkeypatch.setattr(amp, "get_device", lambda: device)
    assert amp.amp_wrapper_type("OptimWrapper") == chosen
    with pytest.raises(MixDetError, match="ApexOptimWrapper"):
        amp.amp_wrapper_type("ApexOptimWrapper")


@pytest.mark.parametrize("native", [True, False])
def test_the_wrapper_warns_if_bfloat16_is_emulated(monkeypatch, native):
    messages = []
    monkeypatch.setattr(amp, "cpu_has_bfloat16", lambda: native)
    monkeypatch.setattr(amp, "print_log", lambda text, level, **_: messages.append((text, level)))
    parameter = torch.nn.Parameter(torch.ones(1))
    CpuAmpOptimWrapper(optimizer=torch.optim.SGD([parameter], lr=0.1))
    ((text, level),) = messages
    assert text.startswith("--amp: weights in float32, the forward pass in bfloat16")
    assert ("slower" in text) == (level == logging.WARNING) == (not native)


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [
        ({"architecture": "arm64", "neon": True, "bf16": True}, True),
        ({"architecture": "arm64", "neon": True, "bf16": False}, False),
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "avx2": True}, False),
    ],
)
def test_support_for_bfloat16_is_read_from_the_capabilities_of_the_cpu(
    monkeypatch, capabilities, native
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert amp.cpu_has_bfloat16() == native
