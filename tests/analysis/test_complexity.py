"""Counts against a sum over the convolutions, and against the published size of the baseline."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from mixdet.analysis.complexity import complexity
from tests.conftest import ROOT

BASELINE = ROOT / "configs/ssdlite_mobilenet_v2_coco.py"


@pytest.mark.parametrize("name", ["ssdlite_mobilenet_v2_coco", "ssdlite_mixnet_s_digits"])
def test_madds_are_those_of_the_convolutions(name):
    path = ROOT / f"configs/{name}.py"
    found = complexity(path)
    model = MODELS.build(Config.fromfile(path).model).eval()
    madds = 0

    def count(conv: torch.nn.Conv2d, _, output: torch.Tensor) -> None:
        nonlocal madds
        madds += output.numel() * conv.weight[0].numel()

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, *found.input_size))
    assert found.madds == madds


def test_baseline_has_the_size_that_mmdet_states():
    """4.229 M parameters and 0.746 B multiply-adds, of mmdet's own config of the same network."""
    found = complexity(BASELINE)
    assert found.input_size == (320, 320)
    assert round(found.params / 1e6, 3) == 4.229
    assert round(found.madds / 1e9, 3) == 0.746
