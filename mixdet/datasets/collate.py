"""A collate function whose batches are cheap to send from a worker to the training process."""

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
    """Collate as mmengine's `pseudo_collate` does, but into lists that are cheap to pickle.

    For each tensor that a worker sends, torch opens a block of shared memory and passes it over a
    socket. With five tensors per image this takes longer than the augmentation. With this function,
    a worker sends the images of a batch as one tensor, and the list of each other key as one bytes
    object. The training process receives the same lists of tensors and data samples that the worker
    collated.

    Args:
        samples: One dict per image, as the pipeline returns it: `inputs` (3, H, W), and other keys.

    Returns:
        The batch, with a list for each key.
    """
    batch = pseudo_collate(samples)
    for key, values in batch.items():
        if isinstance(values, list):
            batch[key] = ImageList(values) if key == "inputs" else PackedList(values)
    return batch


def stack_images(images: Sequence[Tensor]) -> Tensor:
    """Stack N images (3, H, W) into (N, 3, H, W) and keep their memory format.

    `torch.stack` by itself would store channels-last images as channels-first.
    """
    stored, channels_last = _as_stored(images)
    return _channels_first(torch.stack(stored), channels_last)


def have_one_shape(images: Any) -> bool:
    """Tell whether images are a list of 3-D tensors with the same shape, type and device.

    Test-time augmentation gives nested lists, for which the answer is False.
    """
    return (
        isinstance(images, Sequence)
        and len(images) > 0
        and all(type(image) is Tensor and image.dim() == 3 for image in images)
        and len({(image.shape, image.dtype, image.device) for image in images}) == 1
    )


def is_channels_last(image: Tensor) -> bool:
    """Tell whether an image (3, H, W) is stored as (H, W, 3)."""
    return image.permute(1, 2, 0).is_contiguous()


def _as_stored(images: Sequence[Tensor]) -> tuple[list[Tensor], bool]:
    """Return (images, channels_last). If all are channels-last, permute the images to (H, W, 3)."""
    channels_last = all(map(is_channels_last, images))
    return [image.permute(1, 2, 0) if channels_last else image for image in images], channels_last


def _channels_first(stored: Tensor, channels_last: bool) -> Tensor:
    """Undo the permutation of `_as_stored`, for a stack of images."""
    return stored.permute(0, 3, 1, 2) if channels_last else stored


class ImageList(list):
    """A list of images, which is pickled as one tensor if all images have the same shape."""

    def __reduce__(self) -> tuple[Callable, tuple]:
        if not have_one_shape(self):
            return ImageList, (list(self),)
        stored, channels_last = _as_stored(self)
        if get_worker_info() is None or stored[0].device.type != "cpu":
            return _unstack, (torch.stack(stored), channels_last)
        shared = SharedTensor((len(stored), *stored[0].shape), stored[0].dtype)
        torch.stack(stored, out=shared.tensor)
        return _unstack, (shared, channels_last)

    # torch calls copy.copy when it pins memory. Without this method, copy.copy calls __reduce__.
    def __copy__(self) -> ImageList:
        return ImageList(self)


class PackedList(list):
    """A list that is pickled as one bytes object, including the tensors in it."""

    def __reduce__(self) -> tuple[Callable, tuple]:
        file = io.BytesIO()
        _TensorPickler(file, pickle.HIGHEST_PROTOCOL).dump(list(self))
        return _unpack, (file.getvalue(),)

    def __copy__(self) -> PackedList:
        return PackedList(self)


class _TensorPickler(pickle.Pickler):
    """Pickles a CPU tensor as a NumPy array, without shared memory, if NumPy supports its type."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is Tensor and value.device.type == "cpu":
            # bfloat16, sparse tensors and tensors with gradients are pickled as usual
            with contextlib.suppress(TypeError, RuntimeError):
                return torch.from_numpy, (value.numpy(),)
        return NotImplemented


def _unstack(stored: Tensor, channels_last: bool) -> ImageList:
    return ImageList(_channels_first(stored, channels_last).unbind())


def _unpack(content: bytes) -> PackedList:
    # This adds no risk: the pickle that contains `content` can already run any code.
    return PackedList(pickle.loads(content))
