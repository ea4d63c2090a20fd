"""A data preprocessor that handles a whole batch at once, unlike mmdet's."""

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

from mixdet.datasets.collate import have_one_shape, is_channels_last, stack_images
from mixdet.datasets.transforms.photometric import PhotometricDistortion, distort_batch
from mixdet.errors import MixDetError


@MODELS.register_module()
class BatchedDetDataPreprocessor(DetDataPreprocessor):
    """mmdet's `DetDataPreprocessor`, but faster for batches in which all images have the same size.

    mmdet sends each image, its boxes and its labels to the GPU one by one, waits for each of them,
    and normalizes image by image. This class sends the images of a batch as one tensor, and all
    boxes and labels as one tensor per data type. It sends them from pinned memory without waiting,
    and normalizes the whole batch at once. On a CPU, channels-last images (see `PackChannelsLast`)
    are converted and normalized in one pass and stay channels-last. The results are the same as
    mmdet's, except for rounding on a CPU. Images of different sizes, and samples with other
    annotations than boxes and labels, are handled by mmdet's code.

    Args:
        photometric: Arguments of `PhotometricDistortion`, to distort training batches on the
            device. Use this if the CPU cannot keep up with a GPU. In this case, turn off the
            distortion on the CPU by `SSDRandomCrop(photometric=None)`. The random numbers come from
            NumPy's global generator, which `SeedIterationHook` seeds. With None nothing is
            distorted.
        **kwargs: Arguments of `DetDataPreprocessor`.

    Raises:
        MixDetError: `photometric` is given, and a training batch has images of different sizes.
    """

    def __init__(self, photometric: dict | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.photometric = None if photometric is None else PhotometricDistortion(**photometric)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Send a batch to the device, and distort, normalize and pad it.

        Args:
            data: A dict. `inputs` is a list of images (3, H, W) or one tensor (N, 3, H, W), in BGR
                from 0 to 255, uint8 or float. `data_samples` has one sample per image, or is None.
            training: Whether the batch is for training.

        Returns:
            A dict. `inputs` is (N, 3, H, W) float, in RGB if `bgr_to_rgb` is set. `data_samples`
            has copies of the samples, with the padded size added. Boxes are plain tensors unless
            `boxtype2tensor` is False.
        """
        if training and self.photometric is not None:
            images = data["inputs"]
            if not isinstance(images, Tensor):
                if not have_one_shape(images):
                    raise MixDetError(
                        "model.data_preprocessor.photometric: the images of a batch have different "
                        "sizes: resize them in the pipeline, or give photometric to SSDRandomCrop"
                    )
                images = stack_images(images)
            draws = [self.photometric.draw() for _ in images]
            data = {**data, "inputs": distort_batch(self._send(images), draws)}
        elif self._takes_one_pass(data["inputs"]):
            return self._in_one_pass(data["inputs"], data.get("data_samples"))
        return super().forward(data, training)

    def _takes_one_pass(self, inputs: Any) -> bool:
        """Tell whether `_in_one_pass` supports the inputs. Padding is not supported."""
        return (
            self.device.type == "cpu"
            and self._enable_normalize
            and self.mean.dtype != torch.float64
            and not (self.pad_mask or self.pad_seg or self.batch_augments)
            and have_one_shape(inputs)
            and len(inputs[0]) == len(self.mean) == 3
            and all(is_channels_last(image) and not image.requires_grad for image in inputs)
            and not any(side % self.pad_size_divisor for side in inputs[0].shape[1:])
        )

    def _in_one_pass(self, images: Sequence[Tensor], samples: Sequence | None) -> dict:
        """Preprocess as mmdet does, but apply channel order and normalization as one linear map."""
        pixels = stack_images(images).float().permute(0, 2, 3, 1)  # (N, H, W, 3)
        mean = self.mean.float().view(3, 1)
        scale = 1 / self.std.float().view(-1, 1).expand_as(mean)
        linear_map = torch.cat([torch.diag(scale[:, 0]), -mean * scale], 1)
        if self._channel_conversion:
            linear_map[:, :3] = linear_map[:, :3].flip(1)
        normalized = cv2.transform(pixels.flatten(0, 1).numpy(), linear_map.numpy())
        inputs = torch.from_numpy(normalized).view(pixels.shape).permute(0, 3, 1, 2)
        if samples is not None:
            size = tuple(inputs.shape[2:])
            samples = self.cast_data({"data_samples": samples})["data_samples"]
            for sample in samples:
                sample.set_metainfo({"batch_input_shape": size, "pad_shape": size})
            if self.boxtype2tensor:
                samplelist_boxtype2tensor(samples)
        return {"inputs": inputs, "data_samples": samples}

    def cast_data(self, data: Any) -> Any:
        """Send data to the device as mmengine's `cast_data` does, but as fewer tensors."""
        if not isinstance(data, Mapping):
            return super().cast_data(data)
        sent = {}
        for key, value in data.items():
            if key == "inputs" and have_one_shape(value):
                sent[key] = self._send(stack_images(value))
            elif key == "data_samples" and self.boxtype2tensor and value is not None:
                sent[key] = self._send_samples(value)
            else:
                sent[key] = super().cast_data(value)
        return sent

    def _send(self, tensor: Tensor) -> Tensor:
        """Send a tensor to the device. Pinned memory lets a copy to a GPU run without waiting."""
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _send_samples(self, samples: Sequence) -> Sequence:
        """Copy the samples to the device. All tensors of the same data type are sent as one."""
        copies = [sample.new() for sample in samples]
        fields: dict[torch.dtype, list[tuple[InstanceData, str, Tensor]]] = {}
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
                    fields.setdefault(tensor.dtype, []).append((instances, key, tensor))
        for same_type in fields.values():
            flat = self._send(torch.cat([tensor.flatten() for *_, tensor in same_type]))
            parts = flat.split([tensor.numel() for *_, tensor in same_type])
            for (instances, key, tensor), part in zip(same_type, parts, strict=True):
                instances.set_field(part.view(tensor.shape), key)
        return copies
