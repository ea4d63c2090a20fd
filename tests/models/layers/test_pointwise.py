"""Against torch's own convolutions, called one by one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from mixdet.models import MixNet
from mixdet.models.layers.mixconv import SplitConv2d
from mixdet.models.layers.pointwise import PointwiseConv2d, SplitPointwise

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def images(channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, channels, 7, 5, dtype=dtype)


def one_by_one(split: SplitPointwise, x: Tensor) -> Tensor:
    convs = list(split.children())
    parts = x.split(x.shape[1] // len(convs), 1)
    return torch.cat([F.conv2d(part, c.weight) for part, c in zip(parts, convs, strict=True)], 1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_output_and_gradients(groups, dtype, layout):
    split = SplitPointwise(12, 18, groups).to(dtype)
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
def test_alone_it_is_torchs(groups, bias):
    conv, x = PointwiseConv2d(8, 12, 1, groups=groups, bias=bias), images(8)
    torch.testing.assert_close(conv(x), nn.Conv2d.forward(conv, x))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("groups", "size", "product"), [(1, 40, 1), (1, 41, 0), (4, 40, 0)])
def test_one_image_without_gradients(monkeypatch, groups, size, product, bias):
    conv = PointwiseConv2d(8, 12, 1, groups=groups, bias=bias)
    x = torch.randn(1, 8, size, 40).contiguous(memory_format=torch.channels_last)
    linear, calls = F.linear, []
    monkeypatch.setattr(F, "linear", lambda *args: calls.append(1) or linear(*args))
    with torch.no_grad():
        got, want = conv(x), F.conv2d(x, conv.weight, conv.bias, groups=groups)
    torch.testing.assert_close(got, want)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert len(calls) == product
    conv(x)
    assert len(calls) == product  # with gradients none


def test_a_graph_of_one_image_takes_more():
    conv = PointwiseConv2d(8, 12, 1)
    one, two = (x.contiguous(memory_format=torch.channels_last) for x in torch.randn(2, 2, 8, 7, 5))
    with torch.no_grad():
        graph = make_fx(conv)(one[:1].contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(graph(two), conv(two))


def test_who_listens_to_the_parts_hears_them():
    split, seen = SplitPointwise(6, 4, 2), []
    for conv in split.children():
        conv.register_forward_hook(lambda _, __, y: seen.append(y))
    x = images(6)
    y = split(x)
    torch.testing.assert_close(torch.cat(seen, 1), y)
    torch.testing.assert_close(one_by_one(split, x), y)


def test_another_module_in_a_parts_place_is_asked():
    """As adapters and quantizers put there; they may have the weight of what they stand for."""

    class Twice(nn.Module):
        def __init__(self, conv: nn.Conv2d) -> None:
            super().__init__()
            self.conv, self.weight, self.in_channels = conv, conv.weight, conv.in_channels

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.conv(x)

    split = SplitPointwise(6, 4, 2)
    x = images(6).contiguous(memory_format=torch.channels_last)
    plain = split(x)
    setattr(split, "1", Twice(split.get_submodule("1")))
    torch.testing.assert_close(split(x)[:, 2:], 2 * plain[:, 2:])


def test_vmap_and_onednn_switched_off():
    conv = PointwiseConv2d(6, 4, 1)
    x = torch.randn(2, 3, 6, 7, 5)
    want = torch.stack([conv(each) for each in x])
    torch.testing.assert_close(torch.func.vmap(conv)(x), want)
    channels_last = x[0].contiguous(memory_format=torch.channels_last)
    with torch.backends.mkldnn.flags(enabled=False):
        torch.testing.assert_close(conv(channels_last), want[0])


def test_an_export_shows_the_convolutions_as_they_are():
    """How oneDNN is asked for concerns this machine, not the file."""
    program = torch.export.export(MixNet().eval(), (torch.zeros(1, 3, 64, 64),))
    calls = [node for node in program.graph.nodes if "conv2d" in str(node.target)]
    assert len(calls) > 40
    for call in calls:
        dilation = call.args[5] if len(call.args) > 5 else [1, 1]
        assert list(dilation) == [1, 1], call


def test_channels_that_do_not_divide_stay_apart():
    """MixNet at a width of its own may have such."""
    from mixdet.models.layers.blocks import _pointwise

    conv = _pointwise(7, 9, 2)
    assert type(conv) is SplitConv2d
    assert conv(images(7)).shape == (3, 9, 7, 5)
