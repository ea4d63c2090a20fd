"""A detector's fused copy for PyTorch, checked against the detector."""

from __future__ import annotations

import torch
from mmdet.models.detectors.base import BaseDetector

from mixdet.errors import MixDetError, one_line
from mixdet.models.fusing import fuse
from mixdet.models.torch_private import tree_leaves

TOLERANCE = 1e-4  # of the largest output; it moves boxes by less than a hundredth of a pixel


@torch.no_grad()
def fused_twin(model: BaseDetector, batch: dict) -> BaseDetector:
    """Fuse a detector for PyTorch, and check that the copy gives the same outputs on an image.

    Args:
        model: A single-stage detector in evaluation mode.
        batch: A batch as its data preprocessor takes it. The first image is used.

    Returns:
        The fused copy.

    Raises:
        MixDetError: The detector cannot be fused, for whatever reason, or the outputs differ. They
            do where a batch norm does not follow the convolution that is defined before it.
    """
    try:
        fused = fuse(model, "torch")
        inputs = model.data_preprocessor(batch)["inputs"][:1]
        outputs, expected = (tree_leaves(m(inputs, mode="tensor")) for m in (fused, model))
        same = all(
            (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()
            for ours, theirs in zip(outputs, expected, strict=True)
        )
    except Exception as error:  # a detector that works must not fail because of its copy
        raise MixDetError(one_line(error)) from error
    if not same:
        raise MixDetError("the fused network differs")
    return fused
