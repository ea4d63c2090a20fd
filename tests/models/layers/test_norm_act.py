"""Batch norm and activation in one step give the results of the two separate modules."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mixdet.models.layers.norm_act import apply_norm_act

ACTS = [nn.SiLU, nn.ReLU, nn.ReLU6]


class Step(nn.Sequential):
    """A norm and an activation that are computed in one step."""

    def forward(self, x: Tensor) -> Tensor:
        return apply_norm_act(*self, x)


def norm_and_act(act: type[nn.Module], **kwargs: float) -> nn.Sequential:
    """Return a norm and an activation. The norm's outputs spread below 0 and above 6."""
    modules = nn.Sequential(nn.BatchNorm2d(6, **kwargs), act(inplace=True))
    nn.init.uniform_(modules[0].weight, 1, 5)
    nn.init.normal_(modules[0].bias)
    return modules


def images(dtype: torch.dtype = torch.float32, size=(5, 4), **kwargs) -> Tensor:
    return (torch.randn(3, 6, *size) * 3 + 1).to(dtype=dtype, **kwargs)


LARGE = (512, 512)  # 18 MiB in float32, above the limit from which gradients are written in place


def saved_bytes(function, x: Tensor) -> int:
    """Return the bytes that autograd stores for `function(x)`, not counting `x` and the result."""
    stored = {}

    def pack(tensor: Tensor) -> int:
        stored[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return 0

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda _: None):
        y = function(x)
    return sum(size for start, size in stored.items() if start not in (x.data_ptr(), y.data_ptr()))


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # weights stay float32
@pytest.mark.parametrize("last", [False, True])
def test_one_step_equals_the_two_modules(act, layout, dtype, last):
    plain = norm_and_act(act, momentum=0.03, eps=1e-3)
    ours = copy.deepcopy(plain)
    x = images(dtype, memory_format=layout).requires_grad_()
    x_ours = x.detach().clone().requires_grad_()
    for _ in range(2):
        y, y_ours = plain(x), apply_norm_act(*ours, x_ours, last)
        torch.testing.assert_close(y_ours, y, rtol=0, atol=0)
        assert y_ours.is_contiguous(memory_format=layout)
        grad = torch.randn_like(y)
        y.backward(grad)
        y_ours.backward(grad)
    assert all(map(torch.equal, ours.buffers(), plain.buffers()))
    torch.testing.assert_close(x_ours.grad, x.grad)
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("act", ACTS)
def test_gradients_of_large_tensors_equal_those_of_the_two_modules(act):
    """The test uses float64, because float32 rounds sums over so many pixels."""
    ours = norm_and_act(act).double()
    plain = copy.deepcopy(ours)
    x = images(torch.float64, LARGE, memory_format=torch.channels_last).requires_grad_()
    x_ours = x.detach().clone().requires_grad_()
    y, y_ours = plain(x), apply_norm_act(*ours, x_ours)
    grad = torch.randn_like(y)
    y.backward(grad)
    y_ours.backward(grad)
    torch.testing.assert_close(x_ours.grad, x.grad)
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6])
def test_the_last_output_may_be_changed_in_place(act):
    ours = norm_and_act(act)
    plain = copy.deepcopy(ours)
    x = images().requires_grad_()
    x_ours = x.detach().clone().requires_grad_()
    plain(x).mul(2).sum().backward()
    apply_norm_act(*ours, x_ours, last=True).mul_(2).sum().backward()
    torch.testing.assert_close(x_ours.grad, x.grad)


@pytest.mark.parametrize("act", ACTS)
def test_first_and_second_derivatives_pass_gradcheck(act):
    norm, act = norm_and_act(act).double()
    inputs = (images(torch.float64)[:2, :, :1].requires_grad_(), norm.weight, norm.bias)
    del norm.weight, norm.bias  # then they can be set to tensors that are not parameters

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        norm.weight, norm.bias = weight, bias
        return apply_norm_act(norm, act, x)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_one_step_stores_less_than_the_two_modules():
    x = images().requires_grad_()
    channel_bytes = 6 * 4 * 8  # bytes of up to 4 float64 values for each of 6 channels
    for act in (nn.SiLU, nn.ReLU6):
        plain = norm_and_act(act)
        assert saved_bytes(plain, x) >= x.nbytes
        assert saved_bytes(Step(*copy.deepcopy(plain)), x) < channel_bytes
    assert channel_bytes < x.nbytes


def test_the_gradient_of_a_large_tensor_needs_no_second_tensor():
    """The gradient of `x` overwrites the gradient of the norm's output, but not that of `y`."""
    for act in ACTS:
        x = images(size=LARGE, memory_format=torch.channels_last).requires_grad_()
        y = apply_norm_act(*norm_and_act(act), x)
        grad = torch.randn_like(y)
        before = grad.clone()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as ran:
            torch.autograd.grad(y, x, grad)
        allocated = [event.self_cpu_memory_usage for event in ran.events()]
        assert sum(size >= x.nbytes for size in allocated) == 1, act
        assert torch.equal(grad, before)


@pytest.mark.parametrize("act", ACTS)
def test_gradients_of_large_float16_tensors_are_finite(act):
    """If the sums over all pixels were in float16, they would overflow."""
    norm, act = nn.BatchNorm2d(6).half(), act()
    x = (images(size=(768, 768)) * 1e-3).half().to(memory_format=torch.channels_last)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(apply_norm_act(norm, act, x), x, torch.rand_like(x))
    (expected,) = torch.autograd.grad(act(norm(x)), x, torch.rand_like(x))
    assert gradient.isfinite().all()
    assert expected.isfinite().all()


@pytest.mark.parametrize("size", [(5, 4), LARGE], ids=str)
def test_batched_gradients_equal_single_ones(size):
    norm, act = norm_and_act(nn.ReLU6)
    x = images(size=size, memory_format=torch.channels_last).requires_grad_()
    y = apply_norm_act(norm, act, x)
    grads = torch.randn(2, *y.shape)
    expected = [torch.autograd.grad(y, x, grad, retain_graph=True)[0] for grad in grads]
    (gradients,) = torch.autograd.grad(y, x, grads, is_grads_batched=True)
    torch.testing.assert_close(gradients, torch.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(5, 4), LARGE], ids=str)
@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_frozen_parameters_get_no_gradient(parameter, size):
    norm, act = norm_and_act(nn.SiLU)
    getattr(norm, parameter).requires_grad_(False)
    x = images(size=size, memory_format=torch.channels_last).requires_grad_()
    apply_norm_act(norm, act, x).sum().backward()
    assert [p.grad is None for p in norm.parameters()] == [
        parameter == "weight",
        parameter == "bias",
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.BatchNorm2d(6), nn.LeakyReLU()),
        lambda: nn.Sequential(nn.BatchNorm2d(6), nn.Identity()),
        lambda: nn.Sequential(nn.GroupNorm(2, 6), nn.SiLU()),
        lambda: nn.Sequential(nn.BatchNorm2d(6, affine=False), nn.SiLU()),
        lambda: nn.Sequential(nn.BatchNorm2d(6, track_running_stats=False), nn.SiLU()),
        lambda: nn.Sequential(nn.BatchNorm2d(6, momentum=None), nn.SiLU()),
        lambda: norm_and_act(nn.SiLU).eval(),
    ],
)
def test_other_norms_and_activations_are_called_one_by_one(make):
    plain = make()
    ours = copy.deepcopy(plain)
    x = images()
    for _ in range(2):
        torch.testing.assert_close(apply_norm_act(*ours, x), plain(x), rtol=0, atol=0)
    assert all(map(torch.equal, ours.buffers(), plain.buffers()))


def test_hooks_on_the_modules_fire():
    seen = []
    norm, act = norm_and_act(nn.SiLU)
    for module in (norm, act):
        module.register_forward_hook(lambda module, *_: seen.append(type(module)))
    apply_norm_act(norm, act, images())
    assert seen == [nn.BatchNorm2d, nn.SiLU]


def test_global_module_hooks_fire():
    seen = []
    plain = norm_and_act(nn.SiLU)
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, *_: seen.append(type(module))
    )
    try:
        apply_norm_act(*plain, images())
    finally:
        handle.remove()
    assert seen == [nn.BatchNorm2d, nn.SiLU]


@pytest.mark.parametrize(
    "trace", [torch.fx.symbolic_trace, lambda step: torch.jit.trace(step, images())]
)
def test_one_step_can_be_traced_in_training(trace):
    step, x = Step(*norm_and_act(nn.SiLU)), images()
    expected = copy.deepcopy(step)(x)
    torch.testing.assert_close(trace(copy.deepcopy(step))(x), expected)


def test_an_empty_batch_does_not_change_the_statistics():
    """`nn.BatchNorm2d` does not change them either."""
    x = torch.zeros(0, 6, 5, 4)
    norm, act = norm_and_act(nn.SiLU)
    assert apply_norm_act(norm, act, x).shape == x.shape
    assert torch.equal(norm.running_var, torch.ones(6))


def test_one_value_per_channel_is_refused_without_changing_the_statistics():
    """`nn.BatchNorm2d` refuses it too, because the variance of one value would be NaN."""
    norm = nn.BatchNorm2d(4)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        apply_norm_act(norm, nn.ReLU6(), torch.randn(1, 4, 1, 1))
    assert torch.equal(norm.running_var, torch.ones(4))
