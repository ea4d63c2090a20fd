"""BatchedDetDataPreprocessor returns the same batches as mmdet's DetDataPreprocessor."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData, PixelData

from mixdet.datasets import BatchedDetDataPreprocessor
from mixdet.datasets.transforms.photometric import PhotometricDistortion, distort
from mixdet.errors import MixDetError

COMMON = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_value=7
)


def instances(count: int, tensors: bool) -> InstanceData:
    boxes = torch.rand(count, 4)
    return InstanceData(
        bboxes=boxes if tensors else HorizontalBoxes(boxes), labels=torch.arange(count)
    )


def batch(sizes, counts=(2, 0, 3), dtype=torch.uint8, tensors=False) -> dict:
    torch.manual_seed(0)
    samples = []
    for size, count in zip(sizes, counts, strict=True):
        samples.append(DetDataSample(metainfo=dict(img_shape=size, img_id=count)))
        samples[-1].gt_instances = instances(count, tensors)
        samples[-1].ignored_instances = instances(count // 2, tensors)
    inputs = [torch.randint(0, 256, (3, *size)).to(dtype) for size in sizes]
    return {"inputs": inputs, "data_samples": samples}


def assert_same(got: dict, expected: dict, atol: float = 0) -> None:
    torch.testing.assert_close(got["inputs"].cpu(), expected["inputs"], atol=atol, rtol=0)
    for sample, expected_sample in zip(got["data_samples"], expected["data_samples"], strict=True):
        assert sample.metainfo == expected_sample.metainfo
        assert set(sample.keys()) == set(expected_sample.keys())
        for name, value in expected_sample.items():
            for key, expected_tensor in value.items():
                tensor = sample.get(name)[key].cpu()
                assert type(tensor) is type(expected_tensor)
                assert tensor.dtype == expected_tensor.dtype
                assert torch.equal(tensor, expected_tensor)


SAME_SIZE = [(8, 10)] * 3


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("divisor", [1, 32])
@pytest.mark.parametrize(
    "data",
    [
        batch(SAME_SIZE),
        batch(SAME_SIZE, dtype=torch.float32, tensors=True),
        batch([(8, 10), (6, 10), (9, 4)]),
        batch(SAME_SIZE, (0, 0, 0)),
        batch(SAME_SIZE) | {"inputs": torch.stack(batch(SAME_SIZE)["inputs"])},
    ],
    ids=["bytes", "floats", "several sizes", "no objects", "one tensor"],
)
def test_a_batch_equals_the_batch_of_mmdets_preprocessor(data, divisor, training):
    kwargs = COMMON | dict(pad_size_divisor=divisor)
    before = copy.deepcopy(data)
    got = BatchedDetDataPreprocessor(**kwargs)(data, training)
    assert_same(got, DetDataPreprocessor(**kwargs)(copy.deepcopy(data), training))
    for sample, old_sample in zip(data["data_samples"], before["data_samples"], strict=True):
        assert sample.metainfo == old_sample.metainfo  # the given batch is unchanged
        assert type(sample.gt_instances.bboxes) is type(old_sample.gt_instances.bboxes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("order", [{}, {"bgr_to_rgb": True}, {"rgb_to_bgr": True}])
@pytest.mark.parametrize(
    "special",
    [
        {},
        {"mean": [123, 116, 103], "std": [58, 57, 57]},
        {"std": [57.0]},
        {"pad_size_divisor": 32},
        {"mean": [9], "std": [5]},
    ],
    ids=["plain", "integers", "one deviation", "to be padded", "one mean"],
)
def test_channels_last_images_stay_channels_last(dtype, order, special):
    """Images may lose this memory format if they need padding or if the mean is a single value."""
    data = batch(SAME_SIZE, dtype=dtype)
    rows = [image.permute(1, 2, 0).contiguous() for image in data["inputs"]]
    data["inputs"] = [image.permute(2, 0, 1) for image in rows]
    kwargs = dict(mean=COMMON["mean"], std=COMMON["std"]) | order | special
    before = copy.deepcopy(data)
    got = BatchedDetDataPreprocessor(**kwargs)(data)
    assert_same(got, DetDataPreprocessor(**kwargs)(copy.deepcopy(data)), atol=2e-6)
    if "pad_size_divisor" not in special and len(kwargs["mean"]) == 3:
        assert got["inputs"].is_contiguous(memory_format=torch.channels_last)
    for sample, old_sample in zip(data["data_samples"], before["data_samples"], strict=True):
        assert sample.metainfo == old_sample.metainfo  # the given batch is unchanged
    assert all(map(torch.equal, data["inputs"], before["inputs"]))


def test_gradients_reach_the_images():
    images = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    BatchedDetDataPreprocessor(**COMMON)({"inputs": list(images)})["inputs"].sum().backward()
    expected = 1 / torch.tensor(COMMON["std"]).flip(0).view(3, 1, 1)  # from RGB to BGR
    torch.testing.assert_close(images.grad, expected.expand_as(images))


def test_a_float64_network_gets_float64_images():
    data = {"inputs": [torch.ones(4, 5, 3, dtype=torch.uint8).permute(2, 0, 1)]}
    ours, theirs = (
        kind(**COMMON).double() for kind in (BatchedDetDataPreprocessor, DetDataPreprocessor)
    )
    torch.testing.assert_close(ours(dict(data))["inputs"], theirs(dict(data))["inputs"])


def test_segmentation_maps_are_batched_as_in_mmdet():
    data = batch(SAME_SIZE)
    data["data_samples"][1].gt_sem_seg = PixelData(sem_seg=torch.zeros(1, 8, 10))
    got = BatchedDetDataPreprocessor(**COMMON)(copy.deepcopy(data))
    expected = DetDataPreprocessor(**COMMON)(data)
    assert torch.equal(
        got["data_samples"][1].gt_sem_seg.sem_seg, expected["data_samples"][1].gt_sem_seg.sem_seg
    )


def test_images_without_samples_are_normalized_as_in_mmdet():
    """Test-time augmentation and test data without annotations give batches without samples."""
    images = batch(SAME_SIZE)["inputs"]
    ours, theirs = BatchedDetDataPreprocessor(**COMMON), DetDataPreprocessor(**COMMON)
    for inputs in (images, torch.stack(images)):
        data = {"inputs": inputs, "data_samples": None}
        assert torch.equal(ours(data)["inputs"], theirs(data)["inputs"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_batch_on_a_gpu_equals_mmdets():
    got = BatchedDetDataPreprocessor(**COMMON).cuda()(batch(SAME_SIZE), True)
    assert got["inputs"].is_cuda
    assert got["data_samples"][0].gt_instances.bboxes.is_cuda
    expected = DetDataPreprocessor(**COMMON)(batch(SAME_SIZE), True)
    torch.testing.assert_close(got["inputs"].cpu(), expected["inputs"])
    assert torch.equal(
        got["data_samples"][2].gt_instances.bboxes.cpu(),
        expected["data_samples"][2].gt_instances.bboxes,
    )


def test_the_seed_determines_the_distortion_of_training_images():
    settings = dict(brightness_delta=20)
    model = BatchedDetDataPreprocessor(photometric=settings, **COMMON)
    data, plain = batch(SAME_SIZE), DetDataPreprocessor(**COMMON)
    np.random.seed(5)
    distorted = model(data, training=True)["inputs"]
    np.random.seed(5)
    drawn = [PhotometricDistortion(**settings).draw() for _ in SAME_SIZE]
    pixels = [
        distort(image.permute(1, 2, 0).contiguous().numpy(), draw)
        for image, draw in zip(data["inputs"], drawn, strict=True)
    ]
    expected = plain({"inputs": [torch.from_numpy(p).permute(2, 0, 1) for p in pixels]})
    torch.testing.assert_close(distorted, expected["inputs"], atol=1e-3, rtol=0)
    # Without `training`, nothing is distorted.
    assert torch.equal(model(data)["inputs"], plain(data)["inputs"])


def test_distortion_refuses_images_of_several_sizes():
    model = BatchedDetDataPreprocessor(photometric={}, **COMMON)
    with pytest.raises(MixDetError, match="have different sizes"):
        model(batch([(8, 10), (6, 10), (9, 4)]), training=True)
