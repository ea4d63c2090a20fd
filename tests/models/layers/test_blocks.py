"""Comparison of our blocks with timm's."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from timm.models import _efficientnet_blocks as timm_blocks
from torch import nn

from mixdet.models.layers import DepthwiseSeparable, InvertedResidual, SqueezeExcite

BN = dict(type="BN")
ACTS = {"SiLU": nn.SiLU, "ReLU6": nn.ReLU6}


def randomized(module: nn.Module) -> nn.Module:
    for name, tensor in module.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.normal_(std=0.3)
    return module.eval()


def test_squeeze_excite_equals_timm():
    theirs = randomized(timm_blocks.SqueezeExcite(12, rd_channels=5, act_layer=nn.SiLU))
    ours = SqueezeExcite(12, 5, dict(type="SiLU"))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 12, 4, 5)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel_sizes", [5, (3, 5, 7)], ids=str)
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(
    ("out", "stride", "se_ratio", "groups", "act"),
    [
        (12, 1, 0.5, (2, 2), "SiLU"),  # with a shortcut
        (12, 2, 0.25, (1, 2), "SiLU"),
        (20, 1, 0, (1, 1), "ReLU6"),
    ],
)
def test_inverted_residual_equals_timm(out, stride, se_ratio, groups, act, kernel_sizes, padding):
    kernels = {1: 1, 2: [1, 1]}
    se = partial(timm_blocks.SqueezeExcite, rd_ratio=se_ratio / 4) if se_ratio else None
    theirs = timm_blocks.InvertedResidual(
        12,
        out,
        kernel_sizes if isinstance(kernel_sizes, int) else list(kernel_sizes),
        stride,
        pad_type="same" if padding == "same" else "",
        exp_ratio=4,
        exp_kernel_size=kernels[groups[0]],
        pw_kernel_size=kernels[groups[1]],
        act_layer=ACTS[act],
        se_layer=se,
    )
    randomized(theirs)
    ours = InvertedResidual(
        12,
        out,
        kernel_sizes,
        stride,
        4,
        se_ratio,
        groups,
        padding=padding,
        norm_cfg=BN,
        act_cfg=dict(type=act),
    ).eval()
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 12, 9, 14)
    expansions = []
    torch.testing.assert_close(ours(x, expansions), theirs(x), rtol=0, atol=1e-5)
    expansion = theirs.bn1(theirs.conv_pw(x))
    torch.testing.assert_close(expansions, [expansion], rtol=0, atol=1e-5)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(("out", "stride"), [(12, 1), (12, 2), (20, 1)])
def test_depthwise_separable_equals_timm(out, stride, residual):
    theirs = timm_blocks.DepthwiseSeparableConv(
        12, out, 3, stride, noskip=not residual, pw_act=not residual, act_layer=nn.ReLU6
    )
    randomized(theirs)
    ours = DepthwiseSeparable(
        12, out, 3, stride, residual=residual, norm_cfg=BN, act_cfg=dict(type="ReLU6")
    ).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 12, 9, 14)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


def test_norm_and_activation_come_from_their_configs():
    block = InvertedResidual(
        8,
        8,
        se_ratio=0.5,
        norm_cfg=dict(type="SyncBN", momentum=0.03, eps=0.01),
        act_cfg=dict(type="LeakyReLU", negative_slope=0.2),
    )
    norms = [module for name, module in block.named_modules() if name.startswith("bn")]
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.03, 0.01)}
    acts = [module for name, module in block.named_modules() if name.endswith(("act1", "act2"))]
    assert len(acts) == 3
    assert {act.negative_slope for act in acts} == {0.2}
