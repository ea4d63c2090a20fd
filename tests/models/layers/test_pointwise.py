"""Comparison of our 1x1 convolutions with torch's convolution, which is called once per group."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from mixdet.models import MixNet
from mixdet.models.layers.pointwise import PointwiseConv2d, SplitPointwiseConv2d

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def images(channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, channels, 7, 5, dtype=dtype)


def one_by_one(split: SplitPointwiseConv2d, x: Tensor) -> Tensor:
    convs = list(split.children())
    parts = x.split(x.shape[1] // len(convs), 1)
    return torch.cat([F.conv2d(part, c.weight) for part, c in zip(parts, convs, strict=True)], 1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_output_and_gradients_of_groups_equal_torch(groups, dtype, layout):
    split = SplitPointwiseConv2d(12, 18, groups).to(dtype)
    x = images(12, dtype).contiguous(memory_format=layout).requires_grad_()
    got, want = split(x), one_by_one(split, x)
    tolerance = {} if dtype != torch.bfloat16 else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(got, want, **tolerance)
    grad = torch.randn_like(got)
    leaves = [x, *split.parameters()]
    for one, other in zip(
        torch.autograd.grad(got, leaves, grad), torch.autograd.grad(want, leaves, grad), strict=True
    ):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_single_convolution_equals_torch(groups, bias):
    conv, x = PointwiseConv2d(8, 12, 1, groups=groups, bias=bias), images(8)
    torch.testing.assert_close(conv(x), nn.Conv2d.forward(conv, x))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("size", [(1, 1), (40, 40), (41, 40)], ids=str)
def test_the_output_of_one_image_without_gradients_equals_torch(groups, size, bias):
    """Up to 40 x 40 cells are computed by a matrix product, more cells by a convolution."""
    conv = PointwiseConv2d(8, 12, 1, groups=groups, bias=bias)
    x = torch.randn(1, 8, *size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        got, want = conv(x), F.conv2d(x, conv.weight, conv.bias, groups=groups)
    torch.testing.assert_close(got, want)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_a_graph_traced_with_one_image_works_for_two_images():
    conv = PointwiseConv2d(8, 12, 1)
    one, two = (x.contiguous(memory_format=torch.channels_last) for x in torch.randn(2, 2, 8, 7, 5))
    with torch.no_grad():
        graph = make_fx(conv)(one[:1].contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(graph(two), conv(two))


def test_hooks_on_the_groups_fire():
    split, seen = SplitPointwiseConv2d(6, 4, 2), []
    for conv in split.children():
        conv.register_forward_hook(lambda _, __, y: seen.append(y))
    x = images(6)
    y = split(x)
    torch.testing.assert_close(torch.cat(seen, 1), y)
    torch.testing.assert_close(one_by_one(split, x), y)


def test_a_module_in_place_of_a_group_is_called():
    """Adapters and quantizers wrap a convolution, and the wrapper may share its weight."""

    class Twice(nn.Module):
        def __init__(self, conv: nn.Conv2d) -> None:
            super().__init__()
            self.conv, self.weight, self.in_channels = conv, conv.weight, conv.in_channels

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.conv(x)

    split = SplitPointwiseConv2d(6, 4, 2)
    x = images(6).contiguous(memory_format=torch.channels_last)
    plain = split(x)
    setattr(split, "1", Twice(split.get_submodule("1")))
    torch.testing.assert_close(split(x)[:, 2:], 2 * plain[:, 2:])


def test_vmap_and_disabled_onednn_give_the_same_output():
    conv = PointwiseConv2d(6, 4, 1)
    x = torch.randn(2, 3, 6, 7, 5)
    want = torch.stack([conv(batch) for batch in x])
    torch.testing.assert_close(torch.func.vmap(conv)(x), want)
    channels_last = x[0].contiguous(memory_format=torch.channels_last)
    with torch.backends.mkldnn.flags(enabled=False):
        torch.testing.assert_close(conv(channels_last), want[0])


def test_exported_convolutions_have_no_dilation():
    """In eager mode, our convolutions pass a dilation of 2 to make torch use oneDNN."""
    program = torch.export.export(MixNet().eval(), (torch.zeros(1, 3, 64, 64),))
    calls = [node for node in program.graph.nodes if "conv2d" in str(node.target)]
    assert len(calls) > 40
    for call in calls:
        dilation = call.args[5] if len(call.args) > 5 else [1, 1]
        assert list(dilation) == [1, 1], call


def test_a_remainder_of_channels_goes_to_the_first_group():
    """A MixNet with other numbers of channels may have groups of unequal sizes."""
    conv, x = SplitPointwiseConv2d(7, 9, 2), images(7)
    first, second = conv.children()
    want = torch.cat([F.conv2d(x[:, :4], first.weight), F.conv2d(x[:, 4:], second.weight)], 1)
    assert first.out_channels == 5
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(conv(x.contiguous(memory_format=layout)), want)


@pytest.mark.parametrize(("channels", "groups"), [((7, 9), 1), ((12, 18), 1), ((12, 18), 3)])
def test_merged_is_one_convolution_that_computes_the_same(channels, groups):
    conv, x = SplitPointwiseConv2d(*channels, 3), images(channels[0])
    merged = conv.merged(groups)
    assert merged.groups == groups
    torch.testing.assert_close(merged(x), conv(x))
