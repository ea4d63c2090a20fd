"""mmdet's data preprocessor in a few steps for a batch, not a few for every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import torch
from mmdet.models import DetDataPreprocessor
from mmdet.models.utils import samplelist_boxtype2tensor
from mmdet.registry import MODELS
from mmdet.structures.bbox import BaseBoxes
from mmengine.structures import InstanceData
from torch import Tensor

from mixdet.datasets.collate import channels_last, of_one_size, stack
from mixdet.datasets.transforms.photometric import PhotometricDistortion, distort_batch
from mixdet.errors import MixDetError


@MODELS.register_module()
class BatchedDetDataPreprocessor(DetDataPreprocessor):
    """mmdet's `DetDataPreprocessor`, with its results, for images of one size.

    mmdet sends each image, and of each its boxes and labels, to the GPU on its own and waits for
    every one, then normalizes image by image. Here the images of a batch go as one tensor
    and all boxes and labels as one for each type, from pinned memory and without waiting, and the
    batch is normalized at once. On a CPU, images that lie channels last (`PackChannelsLast`) are
    put in order and normalized in one pass, equal to rounding, and stay so. Images of several
    sizes, and samples with more than boxes and labels, go mmdet's way.

    Args:
        photometric: Arguments of `PhotometricDistortion`, which then distorts training batches, on
            the device: instead of the pipeline's (`SSDRandomCrop(photometric=None)`), where the
            processors cannot keep up with a GPU. Its numbers are drawn from NumPy's global
            generator, which `SeedIterationHook` seeds.
        **kwargs: As for mmdet's.

    Raises:
        MixDetError: In training with `photometric`, if the images are not of one size.
    """

    def __init__(self, photometric: dict | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.photometric = None if photometric is None else PhotometricDistortion(**photometric)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Send a batch to the device, and distort, normalize and pad it.

        Args:
            data: `inputs`, images (3, H, W), uint8 or float from 0 to 255, BGR as they are
                loaded, or one tensor (N, 3, H, W); `data_samples`, one an image, or None.
            training: Whether the batch is for training.

        Returns:
            `inputs` (N, 3, H, W) float, RGB with `bgr_to_rgb`; `data_samples`, copies with their
            padded size, their boxes plain tensors unless `boxtype2tensor` is False.
        """
        if training and self.photometric is not None:
            images = data["inputs"]
            if not isinstance(images, Tensor):
                if not of_one_size(images):
                    raise MixDetError(
                        "model.data_preprocessor.photometric: the images are not of one size: "
                        "resize them in the pipeline, or distort there"
                    )
                images = stack(images)
            draws = [self.photometric.draw() for _ in images]
            data = {**data, "inputs": distort_batch(self._send(images), draws)}
        elif self._takes_one_pass(data["inputs"]):
            return self._in_one_pass(data["inputs"], data.get("data_samples"))
        return super().forward(data, training)

    def _takes_one_pass(self, inputs: Any) -> bool:
        """Whether images on a CPU, channels last, need neither padding nor anything special."""
        return (
            self.device.type == "cpu"
            and self._enable_normalize
            and self.mean.dtype != torch.float64
            and not (self.pad_mask or self.pad_seg or self.batch_augments)
            and of_one_size(inputs)
            and len(inputs[0]) == len(self.mean) == 3
            and all(channels_last(each) and not each.requires_grad for each in inputs)
            and not any(side % self.pad_size_divisor for side in inputs[0].shape[1:])
        )

    def _in_one_pass(self, images: Sequence[Tensor], samples: Sequence | None) -> dict:
        """What mmdet makes of a batch; its reordering and normalizing are one linear map."""
        pixels = stack(images).float().permute(0, 2, 3, 1)  # (N, H, W, 3)
        mean = self.mean.float().view(3, 1)
        scale = 1 / self.std.float().view(-1, 1).expand_as(mean)
        change = torch.cat([torch.diag(scale[:, 0]), -mean * scale], 1)
        if self._channel_conversion:
            change[:, :3] = change[:, :3].flip(1)
        done = cv2.transform(pixels.flatten(0, 1).numpy(), change.numpy())
        inputs = torch.from_numpy(done).view(pixels.shape).permute(0, 3, 1, 2)
        if samples is not None:
            size = tuple(inputs.shape[2:])
            samples = self.cast_data({"data_samples": samples})["data_samples"]
            for sample in samples:
                sample.set_metainfo({"batch_input_shape": size, "pad_shape": size})
            if self.boxtype2tensor:
                samplelist_boxtype2tensor(samples)
        return {"inputs": inputs, "data_samples": samples}

    def cast_data(self, data: Any) -> Any:
        """To the device, as mmengine's, in few pieces."""
        if not isinstance(data, Mapping):
            return super().cast_data(data)
        sent = {}
        for key, value in data.items():
            if key == "inputs" and of_one_size(value):
                sent[key] = self._send(stack(value))
            elif key == "data_samples" and self.boxtype2tensor and value is not None:
                sent[key] = self._send_samples(value)
            else:
                sent[key] = super().cast_data(value)
        return sent

    def _send(self, tensor: Tensor) -> Tensor:
        """To the device; to a GPU from pinned memory, which need not be waited for."""
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _send_samples(self, samples: Sequence) -> Sequence:
        """All tensors of a type in one piece; the samples given stay as they are."""
        copies = [sample.new() for sample in samples]
        places: dict[torch.dtype, list[tuple[InstanceData, str, Tensor]]] = {}
        for copy in copies:
            for name, instances in copy.items():
                if not isinstance(instances, InstanceData):
                    return super().cast_data(samples)
                instances = instances.new()
                setattr(copy, name, instances)
                for key, value in instances.items():
                    tensor = value.tensor if isinstance(value, BaseBoxes) else value
                    if not isinstance(tensor, Tensor):
                        return super().cast_data(samples)
                    places.setdefault(tensor.dtype, []).append((instances, key, tensor))
        for found in places.values():
            flat = self._send(torch.cat([tensor.flatten() for *_, tensor in found]))
            parts = flat.split([tensor.numel() for *_, tensor in found])
            for (instances, key, tensor), part in zip(found, parts, strict=True):
                instances.set_field(part.view(tensor.shape), key)
        return copies
