"""CARAFE (Wang et al., arXiv 1905.02188), which upsamples with a kernel of its own for each pixel.

Features are (B, C, H, W). Masks are (B, groups * k * k, s * H, s * W), where k is the side of the
kernels and s the factor. Outputs are (B, C, s * H, s * W).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor
from torch.nn import functional as F

from mixdet.compat.mmcv_ops.arithmetic import at_least_float32, input_gradients


def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the upsampled features into `output`.

    Args:
        features: Features.
        masks: The kernels: one for each output pixel and each group of channels.
        output: Receives the result.
        kernel_size: Side of the kernels, odd.
        group_size: Number of groups of channels.
        scale_factor: Factor from the sides of the features to those of the output.
    """
    upsample = partial(_upsample, kernel_size=kernel_size, groups=group_size, factor=scale_factor)
    output.copy_(upsample(at_least_float32(features), at_least_float32(masks)))


def carafe_naive_backward(
    grad_output: Tensor,
    features: Tensor,
    masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of features and masks. See `carafe_naive_forward`."""
    upsample = partial(_upsample, kernel_size=kernel_size, groups=group_size, factor=scale_factor)
    gradients = input_gradients(upsample, [features, masks], grad_output)
    for result, gradient in zip((grad_input, grad_masks), gradients, strict=True):
        result.copy_(gradient)


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    **settings: int,
) -> None:
    """Compute `carafe_naive_forward`, and keep the features in `rfeatures` for the gradients."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, **settings)


def carafe_backward(
    grad_output: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rgrad_output: Tensor,
    rgrad_input_hs: Tensor,
    rgrad_input: Tensor,
    rgrad_masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    **settings: int,
) -> None:
    """Compute `carafe_naive_backward`, with the features that `carafe_forward` has kept."""
    carafe_naive_backward(grad_output, rfeatures, masks, grad_input, grad_masks, **settings)


def _upsample(
    features: Tensor, masks: Tensor, kernel_size: int, groups: int, factor: int
) -> Tensor:
    height, width = features.shape[2:]
    padded = F.pad(features, [kernel_size // 2] * 4).unflatten(1, (groups, -1))
    # (B, groups, k * k, H, s, W, s), which is multiplied with (B, groups, C / groups, H, 1, W, 1)
    kernels = masks.unflatten(1, (groups, -1)).unflatten(4, (width, factor))
    kernels = kernels.unflatten(3, (height, factor))
    result = 0
    for pixel in range(kernel_size**2):
        top, left = divmod(pixel, kernel_size)
        shifted = padded[..., top : top + height, left : left + width]
        result = result + shifted[..., None, :, None] * kernels[:, :, pixel, None]
    return result.flatten(5, 6).flatten(3, 4).flatten(1, 2)


OPERATORS = (
    carafe_backward,
    carafe_forward,
    carafe_naive_backward,
    carafe_naive_forward,
)
