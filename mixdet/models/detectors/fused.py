"""Fuse a detector for PyTorch, and compare the outputs of the fused copy with the detector's."""

from __future__ import annotations

import torch
from mmdet.models.detectors.base import BaseDetector

from mixdet.errors import MixDetError, one_line
from mixdet.models.fusing import fuse
from mixdet.models.torch_private import tree_leaves

# The largest allowed difference of an output, as a fraction of the largest value of that output. A
# difference of this size moves a box of SSDLite by about 0.01 pixel.
TOLERANCE = 1e-4


@torch.no_grad()
def fused_twin(model: BaseDetector, batch: dict) -> BaseDetector:
    """Fuse a detector for PyTorch, and check that the copy gives the same outputs on an image.

    Args:
        model: A single-stage detector in evaluation mode.
        batch: A batch as the detector's data preprocessor takes it. The first image is used.

    Returns:
        The fused copy.

    Raises:
        MixDetError: Fusing fails with any error, or the outputs differ.
            Fusing assumes that each batch norm runs right after the convolution defined before it.
            If `forward` calls them in another order, the outputs differ.
    """
    try:
        fused = fuse(model, "torch")
        inputs = model.data_preprocessor(batch)["inputs"][:1]
        outputs, expected = (tree_leaves(net(inputs, mode="tensor")) for net in (fused, model))
        same = all(
            (output - target).abs().max() <= TOLERANCE * target.abs().max()
            for output, target in zip(outputs, expected, strict=True)
        )
    except Exception as error:
        # Any failure becomes a MixDetError. The caller can then go on with the unfused detector.
        raise MixDetError(one_line(error)) from error
    if not same:
        raise MixDetError("the outputs of the fused network differ from the detector's")
    return fused
