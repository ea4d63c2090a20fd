"""Whether a pipeline uses the masks of the annotation file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import InstaBoost
from mmengine.dataset import Compose

KNOWN_PACKAGES = ("mmcv", "mmdet", "mixdet")  # their transforms tell whether they use masks


def uses_masks(pipeline: Compose) -> bool:
    """Tell whether a pipeline may use the masks in the dict of an image.

    The answer is False only for pipelines of transforms of mmcv, mmdet and MixDet that load no
    masks, and that end with a data sample, which does not contain the dict of the image.
    """
    transforms = list(_transforms(pipeline))
    is_packed = any(type(step).__name__.startswith("Pack") for step in transforms)
    return not is_packed or any(map(_may_use_masks, transforms))


def _may_use_masks(step: Any) -> bool:
    return (
        type(step).__module__.partition(".")[0] not in KNOWN_PACKAGES
        or getattr(step, "with_mask", False)
        or isinstance(step, InstaBoost)
        or "instances" in getattr(step, "meta_keys", ())
    )


def _transforms(node: Any) -> Iterator[Any]:
    """Yield the transforms of a pipeline, also those inside other transforms."""
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _transforms(child)
    elif isinstance(node, Compose):
        yield from _transforms(node.transforms)
    elif callable(node):
        yield node
        for child in getattr(node, "__dict__", {}).values():
            if isinstance(child, (list, tuple, Compose, BaseTransform)):
                yield from _transforms(child)
