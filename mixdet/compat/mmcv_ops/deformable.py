"""Deformable convolutions (arXiv 1703.06211 and 1811.11168) and deformable attention.

Features are (B, C, H, W). Offsets are (B, 2 * deform groups * kernel pixels, h, w), as y and x of
each pixel of the kernel, where h and w are the sides of the output. Masks are
(B, deform groups * kernel pixels, h, w).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torchvision
from torch import Tensor

from mixdet.compat.mmcv_ops.arithmetic import at_least_float32, input_gradients
from mixdet.errors import MixDetError


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **settings: int,
) -> None:
    """Write a deformable convolution (version 1) into `output`.

    Args:
        input: Features.
        weight: (output channels, C / groups, kernel rows, kernel columns).
        offset: Offsets.
        output: Receives the result.
        columns: Not used.
        ones: Not used.
        **settings: `dW`, `dH`, `padW`, `padH`, `dilationW` and `dilationH`. The others, such as the
            groups, follow from the shapes.
    """
    convolve = _convolution(settings)
    output.copy_(convolve(*map(at_least_float32, (input, offset, weight))))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **settings: int,
) -> None:
    """Write the gradients of features and offsets. See `deform_conv_forward`."""
    convolve = partial(_convolution(settings), weight=at_least_float32(weight))
    gradients = input_gradients(convolve, [input, offset], grad_output)
    for result, gradient in zip((grad_input, grad_offset), gradients, strict=True):
        result.copy_(gradient)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **settings: int,
) -> None:
    """Add `scale` times the gradient of the weight to `grad_weight`. See `deform_conv_forward`."""
    convolve, features, offsets = _convolution(settings), *map(at_least_float32, (input, offset))

    def of_weight(weight: Tensor) -> Tensor:
        return convolve(features, offsets, weight)

    (gradient,) = input_gradients(of_weight, [grad_weight], grad_output)
    grad_weight.add_(gradient.to(grad_weight.dtype), alpha=scale)


def _convolution(settings: dict[str, int]) -> Callable[..., Tensor]:
    """Return torchvision's function with the settings of version 1."""
    return partial(
        torchvision.ops.deform_conv2d,
        stride=(settings["dH"], settings["dW"]),
        padding=(settings["padH"], settings["padW"]),
        dilation=(settings["dilationH"], settings["dilationW"]),
    )


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **settings: int,
) -> None:
    """Write a modulated deformable convolution (version 2) into `output`.

    Offsets and masks may be larger than the output, as in mmdet's DyHead. mmcv then reads the first
    values of each image's offsets, one after the other, as if they had the size of the output. So
    does this function, since published weights were trained that way.

    Args:
        input: Features.
        weight: (output channels, C / groups, kernel rows, kernel columns).
        bias: (output channels,), or an empty tensor.
        ones: Not used.
        offset: Offsets.
        mask: Masks.
        output: Receives the result.
        columns: Not used.
        with_bias: Whether to add the bias.
        **settings: `stride_h`, `stride_w`, `pad_h`, `pad_w`, `dilation_h`, `dilation_w` and
            `deformable_group`. The others follow from the shapes.

    Raises:
        MixDetError: The offsets or the masks are smaller than the output.
    """
    convolve = _modulated(output, settings)
    inputs = [input, weight, offset, mask, *([bias] if with_bias else [])]
    output.copy_(convolve(*map(at_least_float32, inputs)))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **settings: int,
) -> None:
    """Write the gradients of all inputs. See `modulated_deform_conv_forward`."""
    inputs = [input, weight, offset, mask, *([bias] if with_bias else [])]
    results = [grad_input, grad_weight, grad_offset, grad_mask, *([grad_bias] if with_bias else [])]
    gradients = input_gradients(_modulated(grad_output, settings), inputs, grad_output)
    for result, gradient in zip(results, gradients, strict=True):
        result.copy_(gradient)


def _modulated(output: Tensor, settings: dict[str, int]) -> Callable[..., Tensor]:
    """Return a function of (input, weight, offset, mask, bias) with the settings of version 2."""

    def convolve(
        input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        kernel = settings["deformable_group"] * weight[0, 0].numel()
        return torchvision.ops.deform_conv2d(
            input,
            _first_values(offset, 2 * kernel, output),
            weight,
            bias,
            stride=(settings["stride_h"], settings["stride_w"]),
            padding=(settings["pad_h"], settings["pad_w"]),
            dilation=(settings["dilation_h"], settings["dilation_w"]),
            mask=_first_values(mask, kernel, output),
        )

    return convolve


def _first_values(values: Tensor, channels: int, output: Tensor) -> Tensor:
    """Return the first values of each image as (B, channels, h, w), with the output's sides.

    Raises:
        MixDetError: There are too few values.
    """
    shape = (channels, *output.shape[2:])
    needed = channels * output[0, 0].numel()
    flat = values.flatten(1)
    if flat.size(1) < needed:
        raise MixDetError(
            f"modulated_deform_conv2d: offsets and masks need {shape} values per image, but one of "
            f"them has {tuple(values.shape[1:])}: compute them with the stride of the convolution"
        )
    return flat[:, :needed].unflatten(1, shape)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Compute multi-scale deformable attention (Zhu et al., arXiv 2010.04159), as mmcv on a CPU.

    Args:
        value: (B, keys, heads, channels of a head).
        value_spatial_shapes: Rows and columns of each level, (levels, 2).
        value_level_start_index: Not used.
        sampling_locations: (x, y) from 0 to 1, (B, queries, heads, levels, points, 2).
        attention_weights: (B, queries, heads, levels, points).
        im2col_step: Not used.

    Returns:
        (B, queries, heads * channels of a head).
    """
    attend = _attention(value_spatial_shapes)
    inputs = (value, sampling_locations, attention_weights)
    return attend(*map(at_least_float32, inputs)).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of values, locations and weights. See `ms_deform_attn_forward`."""
    inputs = [value, sampling_locations, attention_weights]
    gradients = input_gradients(_attention(value_spatial_shapes), inputs, grad_output)
    results = (grad_value, grad_sampling_loc, grad_attn_weight)
    for result, gradient in zip(results, gradients, strict=True):
        result.copy_(gradient)


def _attention(spatial_shapes: Tensor) -> Callable[..., Tensor]:
    """Return mmcv's attention in PyTorch as a function of (value, locations, weights)."""
    # Imported here, since mmcv.ops imports the stand-in
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    shapes = spatial_shapes.tolist()

    def attend(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)

    return attend


OPERATORS = (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)
