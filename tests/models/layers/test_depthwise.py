"""Our depthwise convolutions have the same outputs and gradients as torch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mixdet.models import MixConv2d
from mixdet.models.layers.depthwise import depthwise_conv
from mixdet.models.layers.fast_path import onednn_computes

pytestmark = pytest.mark.skipif(
    not onednn_computes(torch.float32), reason="kernel gradients need oneDNN"
)


def kernel_widths(backward: Callable[[], object]) -> list[int]:
    """Return the kernel width of each call of torch's convolution backward, in order."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as ran:
        backward()
    calls = [event for event in ran.events() if event.name == "aten::convolution_backward"]
    return [event.input_shapes[2][-1] for event in sorted(calls, key=lambda e: e.time_range.start)]


def channels_last(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(shape).to(dtype, memory_format=torch.channels_last)
    return x.requires_grad_()


def both(x: Tensor, weight: Tensor, stride: int, padding: int) -> list[tuple[Tensor, ...]]:
    """Return our output and gradients, and those of torch in float64."""
    y = depthwise_conv(x, weight, stride, padding, len(weight))
    grad = torch.randn_like(y)
    ours = (y, *torch.autograd.grad(y, [x, weight], grad))
    x, weight, grad = (t.detach().double().requires_grad_() for t in (x, weight, grad))
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
def test_output_and_gradients_equal_those_of_torch_in_float64(
    batch, channels, height, width, size, stride, extra
):
    padding = size // 2 + extra
    x = channels_last(batch, channels, height, width)
    weight = torch.randn(channels, 1, size, size, requires_grad=True)
    for one, other in zip(*both(x, weight, stride, padding), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [5, 7, 9, 11])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_computed_in_strips_only_in_channels_last(size, stride):
    """A strip is 3 columns of the kernel. Other layouts compute the whole gradient at once."""
    conv, x = MixConv2d(16, size, stride), channels_last(2, 16, 12, 10)
    y = conv(x)
    assert 3 in kernel_widths(lambda: y.sum().backward())
    y = conv(x.detach().contiguous().requires_grad_())
    assert {*kernel_widths(lambda: y.sum().backward())} == {size}


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_mixconv_has_the_gradients_of_its_merged_convolution(padding, stride):
    conv = MixConv2d(24, (3, 5, 7, 9), stride=stride, padding=padding)
    merged = conv.merged().double()
    x = channels_last(2, 24, 11, 10)
    y, wanted = conv(x), merged(x.double())
    torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(y)
    y.backward(grad)
    wanted.backward(grad.double())
    for group, whole in zip(conv.children(), merged.weight.grad.split(6), strict=True):
        border = (9 - group.kernel_size[0]) // 2
        inner = whole[..., border : 9 - border, border : 9 - border]
        torch.testing.assert_close(group.weight.grad.double(), inner, rtol=1e-4, atol=1e-4)


def test_no_gradient_is_computed_for_a_frozen_kernel_or_an_image():
    conv, x = MixConv2d(8, 5), channels_last(1, 8, 6, 6)
    y = conv(x.detach())  # needs no gradient, like an image
    assert {*kernel_widths(lambda: y.sum().backward())} == {3}
    conv.weight.requires_grad_(False)
    conv.weight.grad = None
    y = conv(x)
    assert kernel_widths(lambda: y.sum().backward()) == [5]  # only the input's gradient
    assert conv.weight.grad is None
    assert x.grad is not None


def test_second_derivatives_equal_those_of_torch():
    x, weight = channels_last(1, 6, 7, 6), torch.randn(6, 1, 5, 5, requires_grad=True)

    def second(function) -> tuple[Tensor, ...]:
        y = function(x, weight)
        first = torch.autograd.grad(y.sigmoid().sum(), [x, weight], create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in first), [x, weight])

    wanted = second(lambda x, weight: F.conv2d(x, weight, None, 1, 2, 1, 6))
    for one, other in zip(
        second(lambda *both: depthwise_conv(*both, 1, 2, 6)), wanted, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not onednn_computes(torch.bfloat16), reason="no bfloat16 in hardware")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 7])
def test_gradients_under_autocast_equal_those_of_torch(size, stride):
    conv, x = MixConv2d(16, size, stride), channels_last(2, 16, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    grad = torch.randn_like(y)
    gradients = torch.autograd.grad(y, [x, conv.weight], grad)
    assert y.dtype == torch.bfloat16
    assert [gradient.dtype for gradient in gradients] == [torch.float32] * 2
    with torch.autocast("cpu", torch.bfloat16):
        y = F.conv2d(x, conv.weight, None, stride, size // 2, 1, 16)
    for one, other in zip(gradients, torch.autograd.grad(y, [x, conv.weight], grad), strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.3)


def test_torch_func_forward_mode_empty_batches_and_disabled_onednn_work():
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


def test_the_bias_of_a_folded_norm_is_added():
    conv = MixConv2d(6, 5)
    conv.bias = nn.Parameter(torch.arange(6.0))
    x = channels_last(1, 6, 5, 5)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias, 1, 2, 1, 6))


def test_a_changed_stride_takes_effect():
    conv, x = MixConv2d(6, 5), channels_last(1, 6, 8, 8)
    conv.stride = (2, 1)
    assert conv(x).shape == (1, 6, 4, 8)


def test_tracing_and_batched_gradients_work():
    conv, x = MixConv2d(6, 5), channels_last(1, 6, 8, 8)
    y = conv(x)
    torch.testing.assert_close(torch.fx.symbolic_trace(conv)(x), y)
    grads = torch.randn(3, *y.shape)
    inputs = [x, conv.weight]
    gradients = torch.autograd.grad(y, inputs, grads, retain_graph=True, is_grads_batched=True)
    for turn, grad in enumerate(grads):
        wanted = torch.autograd.grad(y, inputs, grad, retain_graph=True)
        for one, other in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(one[turn], other, rtol=1e-4, atol=1e-4)


def test_mixed_dtypes_are_refused_like_in_torch():
    conv, x = MixConv2d(6, 5), channels_last(1, 6, 8, 8, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"expected scalar type|same"):
        conv(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv.double()(x).dtype == torch.float64
