"""Against torch's own convolution and its gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mixdet.models.layers.shortcut import onednn_computes
from torch import Tensor, nn

from mixdet.models import MixConv2d
from mixdet.models.layers import depthwise
from mixdet.models.layers.depthwise import depthwise_conv

pytestmark = pytest.mark.skipif(
    not onednn_computes(torch.float32), reason="torch without oneDNN computes no strips"
)


@pytest.fixture
def strips(monkeypatch) -> list[tuple]:
    """The shapes of weights whose gradients are computed in strips, as they are."""
    seen, compute = [], depthwise._weight_gradient

    def spy(grad: Tensor, x: Tensor, weight: Tensor, *geometry: int) -> Tensor:
        seen.append(tuple(weight.shape))
        return compute(grad, x, weight, *geometry)

    monkeypatch.setattr(depthwise, "_weight_gradient", spy)
    return seen


def channels_last(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(shape).to(dtype, memory_format=torch.channels_last)
    return x.requires_grad_()


def both(x: Tensor, weight: Tensor, stride: int, padding: int) -> list[tuple[Tensor, ...]]:
    """Output and gradients, ours and those of torch in float64."""
    y = depthwise_conv(x, weight, stride, padding, len(weight))
    grad = torch.randn_like(y)
    ours = (y, *torch.autograd.grad(y, [x, weight], grad))
    x, weight, grad = (each.detach().double().requires_grad_() for each in (x, weight, grad))
    y = F.conv2d(x, weight, None, stride, padding, 1, len(weight))
    return [ours, (y, *torch.autograd.grad(y, [x, weight], grad.detach()))]


@settings(deadline=None, max_examples=60)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(2, 40),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    size=st.sampled_from([5, 7, 9, 11, 13]),
    stride=st.integers(1, 3),
    extra=st.integers(0, 2),
)
def test_gradients(batch, channels, height, width, size, stride, extra):
    padding = size // 2 + extra
    x = channels_last(batch, channels, height, width)
    weight = torch.randn(channels, 1, size, size, requires_grad=True)
    for one, other in zip(*both(x, weight, stride, padding), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [5, 7, 9, 11])
@pytest.mark.parametrize("stride", [1, 2])
def test_in_strips_in_channels_last_alone(strips, size, stride):
    weight = torch.randn(16, 1, size, size, requires_grad=True)
    x = channels_last(2, 16, 12, 10)
    for one, other in zip(*both(x, weight, stride, size // 2), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)
    assert strips == [tuple(weight.shape)]
    both(x.detach().contiguous().requires_grad_(), weight, stride, size // 2)
    assert len(strips) == 1


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_mixconv_has_the_gradients_of_its_merged_form(strips, padding, stride):
    conv = MixConv2d(24, (3, 5, 7, 9), stride=stride, padding=padding)
    merged = conv.merged().double()
    x = channels_last(2, 24, 11, 10)
    y, wanted = conv(x), merged(x.double())
    torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(y)
    y.backward(grad)
    wanted.backward(grad.double())
    assert len(strips) == 3  # of the 3 x 3 kernels oneDNN computes the gradient as it is
    for group, whole in zip(conv.children(), merged.weight.grad.split(6), strict=True):
        border = (9 - group.kernel_size[0]) // 2
        inner = whole[..., border : 9 - border, border : 9 - border]
        torch.testing.assert_close(group.weight.grad.double(), inner, rtol=1e-4, atol=1e-4)


def test_what_is_frozen_gets_no_gradient(strips):
    conv, x = MixConv2d(8, 5), channels_last(1, 8, 6, 6)
    conv(x.detach()).sum().backward()  # the picture itself has none
    assert strips == [(8, 1, 5, 5)]
    conv.weight.requires_grad_(False)
    conv.weight.grad = None
    conv(x).sum().backward()
    assert conv.weight.grad is None
    assert x.grad is not None
    assert len(strips) == 1


def test_second_derivatives():
    """Of the first ones' squares, which `create_graph` makes, against torch's."""
    x, weight = channels_last(1, 6, 7, 6), torch.randn(6, 1, 5, 5, requires_grad=True)

    def second(function) -> tuple[Tensor, ...]:
        y = function(x, weight)
        first = torch.autograd.grad(y.sigmoid().sum(), [x, weight], create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in first), [x, weight])

    wanted = second(lambda x, weight: F.conv2d(x, weight, None, 1, 2, 1, 6))
    for one, other in zip(
        second(lambda *both: depthwise_conv(*both, 1, 2, 6)), wanted, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not onednn_computes(torch.bfloat16), reason="no bfloat16 in hardware")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 7])
def test_under_autocast(strips, size, stride):
    conv, x = MixConv2d(16, size, stride), channels_last(2, 16, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    grad = torch.randn_like(y)
    found = torch.autograd.grad(y, [x, conv.weight], grad)
    assert strips == ([] if size == 3 and stride == 1 else [(16, 1, size, size)])
    assert y.dtype == torch.bfloat16
    assert [each.dtype for each in found] == [torch.float32] * 2
    with torch.autocast("cpu", torch.bfloat16):
        y = F.conv2d(x, conv.weight, None, stride, size // 2, 1, 16)
    for one, other in zip(found, torch.autograd.grad(y, [x, conv.weight], grad), strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.3)


def test_what_torch_alone_can_do_stays():
    conv, x = MixConv2d(6, 5), channels_last(2, 6, 7, 6).detach()
    params = {"weight": conv.weight.detach()}

    def loss(params: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(conv, params, (x,)).sum()

    conv(x).sum().backward()
    torch.testing.assert_close(torch.func.grad(loss)(params)["weight"], conv.weight.grad)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(conv(dual)).tangent
    torch.testing.assert_close(tangent, conv(torch.ones_like(x)))
    assert conv(x[:0]).shape == (0, 6, 7, 6)
    with torch.backends.mkldnn.flags(enabled=False):
        conv.weight.grad, before = None, conv.weight.grad
        conv(x).sum().backward()
    torch.testing.assert_close(conv.weight.grad, before)


def test_a_bias_that_folding_left_is_added():
    conv = MixConv2d(6, 5)
    conv.bias = nn.Parameter(torch.arange(6.0))
    x = channels_last(1, 6, 5, 5)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias, 1, 2, 1, 6))


def test_what_was_changed_afterwards_holds():
    conv, x = MixConv2d(6, 5), channels_last(1, 6, 8, 8)
    conv.stride = (2, 1)
    assert conv(x).shape == (1, 6, 4, 8)


def test_traced_and_for_several_outputs_at_a_time():
    conv, x = MixConv2d(6, 5), channels_last(1, 6, 8, 8)
    y = conv(x)
    torch.testing.assert_close(torch.fx.symbolic_trace(conv)(x), y)
    grads = torch.randn(3, *y.shape)
    inputs = [x, conv.weight]
    found = torch.autograd.grad(y, inputs, grads, retain_graph=True, is_grads_batched=True)
    for turn, grad in enumerate(grads):
        wanted = torch.autograd.grad(y, inputs, grad, retain_graph=True)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one[turn], other, rtol=1e-4, atol=1e-4)


def test_types_are_torchs_affair():
    conv, x = MixConv2d(6, 5), channels_last(1, 6, 8, 8, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"expected scalar type|same"):
        conv(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv.double()(x).dtype == torch.float64
