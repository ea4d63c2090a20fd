"""`SafeCocoDataset` gives what mmdet's `CocoDataset` gives, and reads its file once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmdet.registry import DATASETS, TRANSFORMS
from torch.utils.data import DataLoader

from mixdet.config.read import load_config
from mixdet.data_check import quick_check
from mixdet.errors import MixDetError
from mixdet.evaluation import ScoredData
from tests.tiny import CLASSES, IMAGES, write_config

KINDS = ("CocoDataset", "SafeCocoDataset")
NAMES = ("cat", "dog", "tree", "mug")


def generated_content(seed: int) -> dict:
    """Return annotations with every kind of box, mask and id that mmdet can read."""
    rng = np.random.default_rng(seed)
    images = [
        {
            "id": int(number),
            "file_name": f"folder/{number}.jpg",
            "height": int(rng.integers(10, 200)),
            "width": float(rng.integers(10, 200)) if seed else int(rng.integers(10, 200)),
        }
        for number in rng.permutation(60)
    ]
    masks = (
        [[1.5, 2, 30, 4.25, 5, 60]],
        [],
        {"size": [9, 9], "counts": "P1a`0"},
        {"size": [3, 3], "counts": [4, 5]},
        None,
    )
    annotations = []
    for number in rng.permutation(400):
        box = rng.uniform([-20, -20, 0.5, 0.5], [220, 220, 90, 90])
        box = box.astype(int) + [0, 0, 1, 1] if rng.random() < 0.3 else box.round(2)
        annotation = {
            "id": int(number) + 1,
            "image_id": int(rng.integers(0, 50)),  # ten images stay empty
            "category_id": int(rng.choice([3, 5, 8, 13])),
            "bbox": box.tolist(),
            "area": float(rng.uniform(0.1, 900)),
            "iscrowd": int(rng.random() < 0.2),
        }
        mask = masks[rng.integers(len(masks))]
        if mask is not None:
            annotation["segmentation"] = mask
        annotations.append(annotation)
    categories = zip((5, 3, 13, 8), NAMES, strict=True)
    return {
        "info": {"note": 'a text with "annotations": [{"id": 1}, {"id": 2}] in it'},
        "annotations": annotations,
        "images": images,
        "categories": [{"id": number, "name": name} for number, name in categories],
    }


@pytest.fixture(scope="module", params=["sample", "generated", "floats", "indented", "nan"])
def ann_file(request, coco_sample, tmp_path_factory) -> Path:
    if request.param == "sample":
        return coco_sample / "annotations" / "instances_train2017.json"
    path = tmp_path_factory.mktemp("generated") / "annotations.json"
    content = generated_content(seed=int(request.param == "floats"))
    if request.param == "nan":  # not JSON, but Python's `json` reads it
        content["annotations"][5]["score"] = float("nan")
    path.write_text(json.dumps(content, indent=2 if request.param == "indented" else None))
    return path


def settings(ann_file: Path, **options) -> dict:
    defaults = {"data_prefix": {"img": "images"}, "pipeline": []}
    if "instances" not in ann_file.name:
        defaults["metainfo"] = {"classes": NAMES}
    return {"ann_file": str(ann_file), **defaults, **options}


def build_both(ann_file: Path, wrap=lambda dataset: dataset, **options) -> list:
    return [DATASETS.build(wrap({"type": kind, **settings(ann_file, **options)})) for kind in KINDS]


def assert_same(mmdet, ours) -> None:
    assert len(ours) == len(mmdet)
    for index in [*range(len(mmdet)), -1][: len(mmdet) + 1]:
        expected = mmdet.get_data_info(index)
        assert ours.get_data_info(index) == expected
        assert list(ours.get_data_info(index)) == list(expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"filter_cfg": {"filter_empty_gt": True, "min_size": 32}},
        {"filter_cfg": {"min_size": 64}},
        {"filter_cfg": {"filter_empty_gt": True}, "test_mode": True},
        {
            "metainfo": {"classes": ("mug", "dog", "person")},
            "filter_cfg": {"filter_empty_gt": True},
        },
        {"metainfo": {"classes": ("person", "chair", "cat")}},
        {"metainfo": {"classes": ["none of them"]}},
        {"indices": 7},
        {"indices": -7, "filter_cfg": {"filter_empty_gt": True}},
        {"indices": [5, 0, 5, 2]},
        {"serialize_data": False},
        {"return_classes": True, "caption_prompt": {"cat": {"suffix": "!"}}},
        {"data_prefix": {"img": "a/", "seg": "b"}, "seg_map_suffix": ".x"},
        {"data_root": "/root", "lazy_init": True},
    ],
    ids=str,
)
def test_every_field_equals_that_of_mmdet(ann_file, options):
    mmdet, ours = build_both(ann_file, **options)
    assert_same(mmdet, ours)
    assert [ours.get_cat_ids(i) for i in range(len(ours))] == [
        mmdet.get_cat_ids(i) for i in range(len(mmdet))
    ]
    assert (ours.cat_ids, ours.cat2label) == (mmdet.cat_ids, mmdet.cat2label)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda dataset: {"type": "RepeatDataset", "times": 2, "dataset": dataset},
        lambda dataset: {"type": "ConcatDataset", "datasets": [dataset, {**dataset, "indices": 3}]},
        lambda dataset: {"type": "ClassBalancedDataset", "oversample_thr": 0.9, "dataset": dataset},
        lambda dataset: {"type": "MultiImageMixDataset", "pipeline": [], "dataset": dataset},
    ],
    ids=["RepeatDataset", "ConcatDataset", "ClassBalancedDataset", "MultiImageMixDataset"],
)
def test_wrappers_give_the_same(ann_file, wrap):
    mmdet, ours = build_both(ann_file, wrap, filter_cfg={"filter_empty_gt": True})
    assert len(ours) == len(mmdet)
    for index in range(0, len(mmdet), 5):
        assert ours.get_data_info(index) == mmdet.get_data_info(index)


@pytest.mark.parametrize("indices", [4, -4, [1, 1, 0]])
def test_subsets_are_the_same(ann_file, indices):
    for mmdet, ours in (build_both(ann_file), build_both(ann_file, indices=20)):
        whole = len(ours)
        assert_same(mmdet.get_subset(indices), ours.get_subset(indices))
        assert len(ours) == whole
        mmdet.get_subset_(indices)
        ours.get_subset_(indices)
        assert_same(mmdet, ours)


MASKS = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True},
    {"type": "RandomFlip", "prob": 1.0},
    {"type": "PackDetInputs"},
]


@pytest.fixture
def with_polygons(coco_sample, tmp_path) -> Path:
    """The annotations of real images, with a polygon in each box."""
    content = json.loads((coco_sample / "annotations" / "instances_val2017.json").read_text())
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["segmentation"] = [[x, y + height, x + width / 2, y, x + width, y + height]]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_a_transform_that_loads_masks_gets_the_polygons(coco_sample, with_polygons):
    options = {"data_prefix": {"img": str(coco_sample / "val2017")}, "pipeline": MASKS}
    mmdet, ours = build_both(with_polygons, indices=6, **options)
    loader = DataLoader(ours, num_workers=2, collate_fn=lambda samples: samples[0])
    count = 0
    for index, sample in enumerate(loader):
        expected = mmdet[index]["data_samples"].gt_instances
        masks = sample["data_samples"].gt_instances.masks
        assert (masks.to_ndarray() == expected.masks.to_ndarray()).all()
        count += len(masks)
    assert count > 5


@TRANSFORMS.register_module()
class CountMasks(BaseTransform):
    """A transform of a user that reads the polygons itself."""

    def transform(self, results: dict) -> dict:
        results["masks"] = sum("mask" in instance for instance in results["instances"])
        return results


@pytest.mark.parametrize(
    "transform",
    [
        {"type": "CountMasks"},
        {"type": "RandomApply", "prob": 1.0, "transforms": [{"type": "CountMasks"}]},
    ],
    ids=["direct", "nested"],
)
def test_a_transform_of_a_user_gets_the_polygons(coco_sample, with_polygons, transform):
    pack = {"type": "PackDetInputs", "meta_keys": ("masks",)}
    options = {"data_prefix": {"img": str(coco_sample / "val2017")}}
    _, ours = build_both(with_polygons, pipeline=[MASKS[0], transform, pack], **options)
    assert ours[0]["data_samples"].masks == len(ours.get_data_info(0)["instances"]) > 0


def test_polygons_of_a_file_that_changed_are_refused(with_polygons):
    dataset = build_both(with_polygons)[1]
    with_polygons.write_text(f" {with_polygons.read_text()}")
    with pytest.raises(MixDetError, match=r"instances\.json was changed"):
        [dataset.get_data_info(index) for index in range(len(dataset))]


def test_a_subclass_may_parse_each_image_itself(ann_file):
    class WithAreas(DATASETS.get("SafeCocoDataset")):
        def parse_data_info(self, raw_data_info):
            info = super().parse_data_info(raw_data_info)
            info["areas"] = [annotation["area"] for annotation in raw_data_info["raw_ann_info"]]
            return info

    dataset, (mmdet, _) = WithAreas(**settings(ann_file)), build_both(ann_file)
    assert any(dataset.get_data_info(index)["areas"] for index in range(len(dataset)))
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        del info["areas"]
        assert info == mmdet.get_data_info(index)


def test_other_encodings_of_a_file_give_the_same(tmp_path):
    content = generated_content(0)
    content["annotations"][0]["note"] = "Ü 字 😀 }, {"
    texts = {
        "plain": json.dumps(content).encode(),
        "unicode": json.dumps(content, ensure_ascii=False).encode(),
        "signature": json.dumps(content).encode("utf-8-sig"),
        "utf16": json.dumps(content).encode("utf-16"),
        "surrogate": json.dumps(content).replace("\\ude00", "").encode(),
        "spaces": json.dumps(content, separators=(" ,\r\n\t", "  :  ")).encode() + b"\n\n",
    }
    infos = {}
    for name, text in texts.items():
        path = tmp_path / f"{name}.json"
        path.write_bytes(text)
        dataset = DATASETS.build({"type": "SafeCocoDataset", **settings(path)})
        infos[name] = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert all(info == infos["plain"] for info in infos.values())


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda text: text[:-30], "line 3, column "),
        (lambda text: text + "x", "line 3, column "),
        (lambda text: text.replace('"images"', '"images', 1), "line 2, column "),
        (lambda text: text.replace('"annotations": [', '"annotations": [,', 1), "line 1, column "),
        (lambda text: "", "line 1, column 1"),
    ],
)
def test_bad_json_is_refused_with_line_and_column(tmp_path, change, place):
    text = json.dumps(generated_content(0))
    text = text.replace(', "images"', ',\n"images"').replace(', "categories"', ',\n"categories"')
    path = tmp_path / "annotations.json"
    path.write_text(change(text))
    with pytest.raises(MixDetError) as error:
        DATASETS.build({"type": "SafeCocoDataset", **settings(path)})
    assert str(error.value).startswith(f"{path}: not a COCO annotation file: {place}")


@pytest.mark.parametrize(
    ("kind", "fields", "fault"),
    [
        ("images", {"width": None}, "images[4].width: a number of pixels expected, got None"),
        ("images", {"height": "64"}, "images[4].height: a number of pixels expected, got '64'"),
        ("images", {"file_name": "../x.png"}, "images[4].file_name ../x.png leads out of"),
        ("images", {"id": None}, "images[4].id: a number or text expected, got None"),
        ("annotations", {"bbox": [1, 2, 3]}, "annotations[4].bbox: 4 numbers expected, got 3"),
        ("annotations", {"area": "9"}, "annotations[4].area: a number or no field expected"),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path, kind, fields, fault):
    content = generated_content(0)
    content[kind][4].update(fields)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    with pytest.raises(MixDetError) as error:
        DATASETS.build({"type": "SafeCocoDataset", **settings(path)})
    assert str(error.value).startswith(fault)
    assert str(error.value).endswith(f"({path})")


def test_the_check_the_data_set_and_the_metric_read_a_file_once(images_copy, tmp_path):
    train, val = (images_copy / "annotations" / f"instances_{s}2017.json" for s in ("train", "val"))
    for path in (train, val):
        os.utime(path, (0, 0))  # the process reads a file again if it was just written
    opened, watching = [], [True]

    def note(event, arguments):  # a hook stays until the process ends
        if event == "open" and watching and isinstance(arguments[0], (str, Path)):
            opened.append(os.path.realpath(arguments[0]))

    sys.addaudithook(note)
    types = [f"{split}_dataloader.dataset.type=SafeCocoDataset" for split in ("train", "val")]
    cfg = load_config(write_config(tmp_path, images_copy), types)
    quick_check(cfg)
    datasets = [DATASETS.build(cfg[f"{split}_dataloader"].dataset) for split in ("train", "val")]
    truth = ScoredData.read(val, CLASSES)
    watching.clear()
    assert [len(dataset) for dataset in datasets] == [IMAGES, len(truth.image_ids)]
    assert [opened.count(str(path)) for path in (train, val)] == [1, 1]


def test_a_subset_is_a_copy_of_its_own_data_set(images):
    path = images / "annotations" / "instances_val2017.json"
    freed = set()
    for _ in range(20):
        dataset = build_both(path, metainfo={"classes": CLASSES})[1]
        dataset.get_subset(2)
        freed.add(id(dataset))
        del dataset
    dataset = build_both(path, metainfo={"classes": CLASSES})[1]
    candidates = [[] for _ in range(100_000)]  # some of them take the place of a freed data set
    dataset.note = next((item for item in candidates if id(item) in freed), [])
    assert dataset.get_subset(2).note == []


def test_a_file_that_is_written_again_is_read_again(images_copy):
    path = images_copy / "annotations" / "instances_val2017.json"
    os.utime(path, (0, 0))
    before = ScoredData.read(path).image_ids
    content = json.loads(path.read_text())
    content["images"] = content["images"][:3]
    path.write_text(json.dumps(content))
    assert ScoredData.read(path).image_ids == before[:3]
