"""Batches that cross from a data loading worker to the training process in two pieces."""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import FUNCTIONS
from torch import Tensor
from torch.utils.data import get_worker_info

from mixdet.datasets.shared_memory import SharedTensor


@FUNCTIONS.register_module()
def packed_collate(samples: Sequence[dict]) -> dict[str, Any]:
    """Collate as mmengine's `pseudo_collate`, into lists that are cheap to send to a process.

    torch opens a piece of shared memory, and asks for it over a socket, for each tensor that a
    worker sends: five an image, which takes longer than the augmentation. Here the images of a
    batch cross as one tensor and everything else as one string of bytes. What arrives is what was
    sent: lists of tensors and data samples.

    Args:
        samples: What the pipeline makes of each image: `inputs`, (3, H, W), and whatever else.

    Returns:
        A list for each key.
    """
    batch = pseudo_collate(samples)
    return {
        key: (Images if key == "inputs" else Packed)(values) if isinstance(values, list) else values
        for key, values in batch.items()
    }


def stack(images: Sequence[Tensor]) -> Tensor:
    """(N, 3, H, W) of N images (3, H, W), in the memory format that they have.

    `torch.stack` would lay out each of `PackChannelsLast`'s anew.
    """
    stored, last = _as_stored(images)
    return _planes(torch.stack(stored), last)


def of_one_size(images: Any) -> bool:
    """Whether it is a list of tensors of one shape and type; test-time augmentation has more."""
    return (
        isinstance(images, Sequence)
        and len(images) > 0
        and all(type(each) is Tensor and each.dim() == 3 for each in images)
        and len({(each.shape, each.dtype, each.device) for each in images}) == 1
    )


def channels_last(image: Tensor) -> bool:
    """Whether (3, H, W) lies in memory as (H, W, 3)."""
    return image.permute(1, 2, 0).is_contiguous()


def _as_stored(images: Sequence[Tensor]) -> tuple[list[Tensor], bool]:
    """Each as (H, W, 3) if all lie so in memory, else as it is, and which of both it is."""
    last = all(map(channels_last, images))
    return [each.permute(1, 2, 0) if last else each for each in images], last


def _planes(stored: Tensor, last: bool) -> Tensor:
    """(N, 3, H, W) of what `_as_stored` made."""
    return stored.permute(0, 3, 1, 2) if last else stored


class Images(list):
    """A list of tensors which, if they have one shape, is pickled as one."""

    def __reduce__(self) -> tuple[Callable, tuple]:
        if not of_one_size(self):
            return Images, (list(self),)
        stored, last = _as_stored(self)
        if get_worker_info() is None or stored[0].device.type != "cpu":
            return _unbound, (torch.stack(stored), last)
        shared = SharedTensor((len(stored), *stored[0].shape), stored[0].dtype)
        torch.stack(stored, out=shared.tensor)
        return _unbound, (shared, last)

    def __copy__(self) -> Images:  # which pinning asks for: by reference, as a list's
        return Images(self)


class Packed(list):
    """A list that is pickled as bytes, with all tensors in it."""

    def __reduce__(self) -> tuple[Callable, tuple]:
        file = io.BytesIO()
        _TensorPickler(file, pickle.HIGHEST_PROTOCOL).dump(list(self))
        return _unpacked, (file.getvalue(),)

    def __copy__(self) -> Packed:
        return Packed(self)


class _TensorPickler(pickle.Pickler):
    """Takes tensors as NumPy arrays, which pickle as plain bytes, where NumPy has such."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is Tensor and value.device.type == "cpu":
            with contextlib.suppress(TypeError, RuntimeError):  # bfloat16, sparse, with gradient
                return torch.from_numpy, (value.numpy(),)
        return NotImplemented


def _unbound(stored: Tensor, last: bool) -> Images:
    return Images(_planes(stored, last).unbind())


def _unpacked(content: bytes) -> Packed:
    # reached only through a pickle that is being read already
    return Packed(pickle.loads(content))
