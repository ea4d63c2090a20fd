"""Deformable convolutions and attention equal torchvision's and mmcv's own PyTorch code."""

from __future__ import annotations

from functools import partial
from itertools import product

import mixdet.compat.prepared

import pytest
import torch
import torchvision
from mmcv.ops import DeformConv2d, ModulatedDeformConv2dPack, deform_conv2d, modulated_deform_conv2d
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torch import Tensor
from torch.nn import functional as F

from mixdet.errors import MixDetError

# The fast mode compares a random projection of the Jacobian instead of each of its entries
gradcheck = partial(torch.autograd.gradcheck, fast_mode=True)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random, dtype=torch.float64)


SETTINGS = list(product([1, 2], [1, 2], [(1, 1), (2, 1)], [(1, 1), (0, 2)], [(1, 1), (2, 1)]))


@pytest.mark.parametrize(("groups", "deform_groups", "stride", "padding", "dilation"), SETTINGS)
def test_deformable_convolutions_equal_torchvision(
    groups: int, deform_groups: int, stride: tuple, padding: tuple, dilation: tuple
) -> None:
    x, weight, bias = numbers(2, 4, 9, 8), numbers(6, 4 // groups, 3, 3), numbers(6)
    size = F.conv2d(x, numbers(1, 4, 3, 3), None, stride, padding, dilation).shape[2:]
    offset = numbers(2, 18 * deform_groups, *size, seed=1)
    mask = numbers(2, 9 * deform_groups, *size, seed=2).sigmoid()
    shared = (stride, padding, dilation)
    for inputs, ours, theirs in (
        (
            [x, offset, weight],
            lambda x, o, w: deform_conv2d(x, o, w, *shared, groups, deform_groups),
            lambda x, o, w: torchvision.ops.deform_conv2d(x, o, w, None, *shared),
        ),
        (
            [x, offset, mask, weight, bias],
            lambda x, o, m, w, b: modulated_deform_conv2d(
                x, o, m, w, b, *shared, groups, deform_groups
            ),
            lambda x, o, m, w, b: torchvision.ops.deform_conv2d(x, o, w, b, *shared, m),
        ),
    ):
        results = []
        for function in (ours, theirs):
            leaves = [tensor.clone().requires_grad_() for tensor in inputs]
            output = function(*leaves)
            (output * numbers(*output.shape, seed=3)).sum().backward()
            results.append([output.detach(), *(leaf.grad for leaf in leaves)])
        torch.testing.assert_close(results[0], results[1])


def test_deformable_convolutions_pass_gradcheck() -> None:
    x, weight = numbers(2, 2, 4, 4).requires_grad_(), numbers(2, 1, 3, 3).requires_grad_()
    offset = numbers(2, 36, 4, 4, seed=1).requires_grad_()
    mask = numbers(2, 18, 4, 4, seed=2).sigmoid().requires_grad_()
    settings = (1, 1, 1, 2, 2)
    assert gradcheck(lambda *inputs: deform_conv2d(*inputs, *settings), (x, offset, weight))
    assert gradcheck(
        lambda *inputs: modulated_deform_conv2d(*inputs, None, *settings), (x, offset, mask, weight)
    )


def test_without_offsets_they_are_plain_convolutions() -> None:
    x = numbers(2, 4, 2, 9).float()  # has fewer rows than the kernel, which the layer pads
    layer = DeformConv2d(4, 6, 3, padding=1)
    torch.testing.assert_close(
        layer(x, torch.zeros(2, 18, 2, 9)), F.conv2d(x, layer.weight, padding=1)
    )
    pack = ModulatedDeformConv2dPack(4, 6, 3, padding=1)  # starts with offsets 0 and masks 0.5
    pack.bias.data.fill_(3.0)
    torch.testing.assert_close(pack(x), 0.5 * F.conv2d(x, pack.weight, padding=1) + 3)


def test_masks_and_offsets_that_are_larger_than_the_output_are_read_as_mmcv_reads_them() -> None:
    x, weight = numbers(2, 3, 4, 4).requires_grad_(), numbers(5, 3, 3, 3)
    offset, mask = numbers(2, 18, 8, 8, seed=1).requires_grad_(), numbers(2, 9, 8, 8, seed=2)
    output = modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1)
    # mmcv passes a pointer to each image's values, and the sides of the output
    read = [
        torch.stack([image.reshape(-1)[: count * 16].view(count, 4, 4) for image in values])
        for values, count in ((offset, 18), (mask, 9))
    ]
    expected = torchvision.ops.deform_conv2d(x, read[0], weight, None, 1, 1, mask=read[1])
    torch.testing.assert_close(output, expected)
    (gradient,) = torch.autograd.grad(output.sum(), offset)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), offset)
    torch.testing.assert_close(gradient, expected_gradient)
    with pytest.raises(MixDetError, match=r"need \(18, 4, 4\) values .* has \(18, 2, 2\)"):
        modulated_deform_conv2d(x, offset[..., :2, :2], mask, weight, None, 1, 1)


def test_half_precision_computes_in_float32() -> None:
    x, offset, weight = numbers(1, 2, 5, 5), numbers(1, 18, 5, 5, seed=1), numbers(3, 2, 3, 3)
    half = [tensor.bfloat16() for tensor in (x, offset, weight)]
    output = deform_conv2d(*half, 1, 1)
    expected = torchvision.ops.deform_conv2d(*(t.float() for t in half), None, 1, 1)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, expected.bfloat16())


def attention_inputs(device: str = "cpu") -> tuple[list[Tensor], Tensor, Tensor]:
    shapes = torch.tensor([[4, 5], [2, 3]], device=device)
    starts = torch.tensor([0, 20], device=device)
    value = numbers(2, 26, 2, 4).to(device)
    locations = numbers(2, 7, 2, 2, 3, 2, seed=1).sigmoid().to(device)
    weights = numbers(2, 7, 2, 2, 3, seed=2).to(device)
    return [value, locations, weights], shapes, starts


def test_the_attention_of_the_stand_in_equals_mmcv_on_a_cpu() -> None:
    inputs, shapes, starts = attention_inputs()
    results = []
    for function in (
        # mmcv calls this function for tensors on a GPU only
        lambda v, x, w: MultiScaleDeformableAttnFunction.apply(v, shapes, starts, x, w, 64),
        lambda v, x, w: multi_scale_deformable_attn_pytorch(v, shapes, x, w),
    ):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        output = function(*leaves)
        (output * numbers(*output.shape, seed=3)).sum().backward()
        results.append([output.detach(), *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(results[0], results[1])
    leaves = [tensor.requires_grad_() for tensor in inputs]
    assert gradcheck(
        lambda v, x, w: MultiScaleDeformableAttnFunction.apply(v, shapes, starts, x, w, 64), leaves
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_deformable_attention_on_a_gpu_equals_the_one_on_the_cpu() -> None:
    from mmcv.ops import MultiScaleDeformableAttention

    torch.manual_seed(0)
    layer = MultiScaleDeformableAttention(8, 2, 2, 3, dropout=0, batch_first=True).double()
    results = []
    for device in ("cpu", "cuda"):
        (value, *_), shapes, starts = attention_inputs(device)
        query = numbers(2, 7, 8, seed=4).to(device).requires_grad_()
        output = layer.to(device)(
            query,
            value=value.flatten(2),
            reference_points=numbers(2, 7, 2, 2, seed=5).sigmoid().to(device),
            spatial_shapes=shapes,
            level_start_index=starts,
        )
        output.sum().backward()
        results.append((output.detach().cpu(), query.grad.cpu()))
    torch.testing.assert_close(results[0], results[1])
