"""The random numbers of a sample depend only on its key, which is (seed, epoch, index)."""

from __future__ import annotations

import copy
import pickle
import random

import mixdet.plugin

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import Config
from mmengine.dataset import sampler as mmengine_sampler
from mmengine.runner import Runner

from mixdet.datasets import SampleIndex, SeededSampler, SeedSample
from mixdet.datasets.transforms import seed as seed_module
from mixdet.datasets.transforms.seed import seed_generators
from tests.conftest import ROOT
from tests.tiny import CLASSES, IMAGES


@TRANSFORMS.register_module()
class RefuseSome(BaseTransform):
    """Draw from Python's, NumPy's and torch's generators, and refuse a third of the samples."""

    def transform(self, results: dict) -> dict | None:
        draws = random.random(), np.random.rand(), torch.rand(()).item()
        sample = {"image": results["img_path"], "draws": str(draws)}
        return None if draws[1] < 0.35 else sample


def dataset(images, pipeline):
    return {
        "type": "CocoDataset",
        "data_root": str(images),
        "metainfo": {"classes": CLASSES},
        "ann_file": "annotations/instances_train2017.json",
        "data_prefix": {"img": "train2017/"},
        "pipeline": pipeline,
    }


AUGMENTED = [
    {"type": "SeedSample"},
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "Expand", "ratio_range": (1, 2)},
    {"type": "MinIoURandomCrop"},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackDetInputs"},
]
SHIPPED = Config.fromfile(ROOT / "configs/_base_/datasets/coco_320.py").train_dataloader
DRAWS = [{"type": "SeedSample"}, {"type": "RefuseSome"}]


def loader(config, workers, batch_size=4, collate="pseudo_collate"):
    return Runner.build_dataloader(
        {
            "dataset": config,
            "sampler": {"type": "SeededSampler"},
            "batch_size": batch_size,
            "num_workers": workers,
            "collate_fn": {"type": collate},
            "persistent_workers": workers > 0,
            # The seed with which a worker starts must not matter, so it is an arbitrary one.
            "worker_init_fn": {"type": seed_worker},
        },
        seed=5,
    )


def seed_worker(worker_id):
    seed_generators("somewhere", torch.initial_seed() % 1000, worker_id)


def epochs(loader, number=2):
    """Yield the list of the samples of each epoch."""
    for epoch in range(number):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        yield [sample for batch in batches for sample in zip(*batch.values(), strict=True)]


@pytest.mark.parametrize(
    ("pipeline", "collate"),
    [(AUGMENTED, "pseudo_collate"), (SHIPPED.dataset.pipeline, SHIPPED.collate_fn.type)],
    ids=["mmdet's steps", "shipped"],
)
def test_images_do_not_depend_on_the_number_of_workers(images, pipeline, collate):
    data = dataset(images, pipeline)
    runs = [list(epochs(loader(data, workers, collate=collate))) for workers in (0, 1, 2)]
    by_image = []
    for run in runs:
        for epoch, samples in enumerate(run):
            for (image, sample), (other, other_sample) in zip(samples, runs[0][epoch], strict=True):
                assert torch.equal(image, other)
                assert sample.img_id == other_sample.img_id
                boxes, other_boxes = (s.gt_instances.bboxes for s in (sample, other_sample))
                assert len(boxes) > 0
                assert torch.equal(get_box_tensor(boxes), get_box_tensor(other_boxes))
        by_image.append([{s.img_id: image for image, s in samples} for samples in run])
    first, second = by_image[0]
    assert first.keys() == second.keys()
    differs = [not torch.equal(first[image_id], second[image_id]) for image_id in first]
    assert all(differs)


def test_the_replacement_of_a_refused_sample_depends_on_the_key_only(images):
    runs = [list(epochs(loader(dataset(images, DRAWS), workers), 3)) for workers in (0, 2)]
    assert runs[0] == runs[1]
    assert len({image for image, _ in runs[0][0]}) < IMAGES  # replacements repeat images


@pytest.mark.parametrize("wrap", ["RepeatDataset", "ConcatDataset"])
def test_wrapped_data_sets_keep_the_key(images, wrap):
    inner = dataset(images, DRAWS)
    config = (
        {"type": wrap, "times": 2, "dataset": inner}
        if wrap == "RepeatDataset"
        else {"type": wrap, "datasets": [inner, inner]}
    )
    runs = [list(epochs(loader(config, workers), 1)) for workers in (0, 2)]
    assert runs[0] == runs[1]
    assert (
        len({draws for _, draws in runs[0][0]}) == 2 * IMAGES
    )  # an image that occurs twice gets two different draws


def test_keys_do_not_depend_on_the_number_of_gpus(monkeypatch):
    data = range(10)

    def keys(world_size):
        keys = []
        for rank in range(world_size):
            info = (rank, world_size)
            monkeypatch.setattr(mmengine_sampler, "get_dist_info", lambda info=info: info)
            sampler = SeededSampler(data, seed=3)
            sampler.set_epoch(4)
            keys += [index.key for index in sampler]
        return keys

    assert sorted(keys(1)) == sorted(keys(2)) == [(3, 4, index) for index in range(10)]
    assert keys(1) != sorted(keys(1))


def test_skip_leaves_out_the_first_samples_once():
    sampler = SeededSampler(range(10), seed=3)
    whole = list(sampler)
    sampler.skip(4)
    assert list(sampler) == whole[4:]
    assert list(sampler) == whole
    assert len(sampler) == 10


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copied_index_keeps_its_key(copied):
    index = copied(SampleIndex(7, (1, 2, 7)))
    assert index == 7
    assert index.key == (1, 2, 7)


def test_an_index_without_a_key_leads_to_one_warning(monkeypatch):
    warnings = []
    monkeypatch.setattr(seed_module, "print_log", lambda message, **_: warnings.append(message))
    transform = SeedSample()
    state = random.getstate()
    for _ in range(2):
        assert transform({"sample_idx": 3}) == {"sample_idx": 3}
    assert random.getstate() == state
    assert len(warnings) == 1
    assert "carries no seed" in warnings[0]


def test_every_part_of_the_key_changes_the_draws():
    keys = [("sample", 0, 1, 2), ("sample", 0, 2, 1), ("sample", 1, 0, 2), ("iteration", 0, 1, 2)]
    draws = set()
    for key in keys:
        seed_generators(*key)
        draws.add((random.random(), np.random.rand(), torch.rand(()).item()))
        seed_generators(*key)
        assert (random.random(), np.random.rand(), torch.rand(()).item()) in draws
    assert len(draws) == len(keys)
