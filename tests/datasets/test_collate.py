"""Batches of `packed_collate` arrive with the same values as those of `pseudo_collate`."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch.utils.data import DataLoader, Dataset

from mixdet.datasets import packed_collate


class Samples(Dataset):
    """Images with boxes, as `PackDetInputs` makes them.

    Args:
        sides: The side of each image.
    """

    def __init__(self, sides: list[int]) -> None:
        self.sides = sides

    def __len__(self) -> int:
        return len(self.sides)

    def __getitem__(self, index: int) -> dict:
        torch.manual_seed(index)
        meta = dict(img_id=index, img_path=f"{index}.jpg", scale_factor=(0.5, np.float32(2)))
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = InstanceData(bboxes=torch.rand(index, 4), labels=torch.arange(index))
        half = torch.rand(2, dtype=torch.bfloat16)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), scores=half[:0])
        side = self.sides[index]
        inputs = torch.randint(256, (3, side, side), dtype=torch.uint8)
        return {"inputs": inputs, "data_samples": sample, "half": half}


def assert_same(got: dict, want: dict) -> None:
    assert got.keys() == want.keys()
    for key in ("inputs", "half"):
        assert all(map(torch.equal, got[key], want[key]))
    for sample, expected in zip(got["data_samples"], want["data_samples"], strict=True):
        assert sample.metainfo == expected.metainfo
        for field in ("gt_instances", "ignored_instances"):
            instances, expected_instances = sample.get(field), expected.get(field)
            assert set(instances.keys()) == set(expected_instances.keys())
            for key, value in expected_instances.items():
                assert torch.equal(instances[key], value)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sides", [[8] * 6, [8, 9, 8, 7, 8, 6]], ids=["one size", "sizes"])
def test_batches_of_workers_equal_those_of_pseudo_collate(sides, workers):
    got, want = (
        list(DataLoader(Samples(sides), 3, num_workers=workers, collate_fn=collate))
        for collate in (packed_collate, pseudo_collate)
    )
    assert len(got) == len(want) == 2
    for batch, expected in zip(got, want, strict=True):
        assert_same(batch, expected)


class TensorPickler(pickle.Pickler):
    """A pickler that records the shapes of the tensors that it is given."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.shapes: list[tuple[int, ...]] = []

    def reducer_override(self, value: object) -> object:
        if isinstance(value, torch.Tensor):
            self.shapes.append(tuple(value.shape))
        return NotImplemented


def test_a_batch_is_pickled_with_one_tensor_for_all_images():
    """A queue between processes then needs only one file descriptor for the images of a batch."""
    samples = Samples([8, 8, 8])
    batch = packed_collate([samples[i] for i in range(3)])
    for key, shapes in (("inputs", [(3, 3, 8, 8)]), ("data_samples", [])):
        pickler = TensorPickler(io.BytesIO())
        pickler.dump(batch[key])
        assert pickler.shapes == shapes
    assert_same(pickle.loads(pickle.dumps(batch)), batch)


def test_a_pickled_batch_keeps_its_memory_format():
    planes = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    for sent in (planes, planes.contiguous(memory_format=torch.channels_last)):
        batch = packed_collate([{"inputs": image} for image in sent])
        got = pickle.loads(pickle.dumps(batch))["inputs"]
        assert [image.stride() for image in got] == [image.stride() for image in sent]
        assert all(map(torch.equal, got, sent))


class Augmented(Samples):
    """Samples whose values are lists, as in test-time augmentation, and a sparse tensor."""

    def __getitem__(self, index: int) -> dict:
        sample = super().__getitem__(index)
        sparse = torch.eye(3).to_sparse()
        return {key: [value, value] for key, value in sample.items()} | {"sparse": sparse}


def test_values_that_cannot_be_packed_are_sent_as_they_are():
    """If packing raised an error in a worker's queue, the run would hang."""
    loader = DataLoader(Augmented([8] * 4), 2, num_workers=1, collate_fn=packed_collate, timeout=60)
    batches = list(loader)
    assert len(batches) == 2
    want = Augmented([8] * 4)[1]
    got = batches[0]
    assert torch.equal(got["inputs"][1][1], want["inputs"][1])
    assert torch.equal(got["sparse"][1].to_dense(), torch.eye(3))


def test_a_copy_of_a_batch_is_shallow():
    """torch copies each list when it pins memory. The copy must keep the type and the values."""
    samples = Samples([8, 8])
    batch = packed_collate([samples[i] for i in range(2)])
    for values in batch.values():
        copied = copy.copy(values)
        assert type(copied) is type(values)
        assert all(new is old for new, old in zip(copied, values, strict=True))


def test_mmdets_data_preprocessor_takes_a_packed_batch():
    """mmdet's preprocessor expects a list of image tensors. A packed batch contains such a list."""
    from mmdet.models import DetDataPreprocessor

    samples = Samples([8, 8])
    batch = pickle.loads(pickle.dumps(packed_collate([samples[i] for i in range(2)])))
    done = DetDataPreprocessor(mean=[0.0] * 3, std=[1.0] * 3)(batch)
    assert done["inputs"].shape == (2, 3, 8, 8)
    assert done["data_samples"][1].batch_input_shape == (8, 8)
