"""The two steps of mmcv's masked convolution, which computes only some pixels of its output."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Write the pixels under the kernel, at P positions, into `col`.

    Args:
        im: Features, (1, C, H, W).
        mask_h_idx: Rows of the positions in the convolution's output, (P,).
        mask_w_idx: Their columns, (P,).
        col: Receives the pixels, (C * kernel_h * kernel_w, P).
        kernel_h: Rows of the kernel.
        kernel_w: Columns of the kernel.
        pad_h: Zeros above and below the features.
        pad_w: Zeros at the left and at the right.
    """
    # The outer zeros are for positions at which the kernel leaves the padded features
    padded = F.pad(im[0], (pad_w, pad_w + kernel_w, pad_h, pad_h + kernel_h))
    pixels = [
        padded[:, mask_h_idx + row, mask_w_idx + column]
        for row in range(kernel_h)
        for column in range(kernel_w)
    ]
    col.copy_(torch.stack(pixels, 1).flatten(0, 1))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Write the columns of `col`, (channels, P), to P pixels of `im`, (1, channels, H, W)."""
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)


OPERATORS = (
    masked_col2im_forward,
    masked_im2col_forward,
)
