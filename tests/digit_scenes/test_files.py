"""The files of the digit scenes: splits, sizes, COCO's layout, and folders with other files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mixdet.digit_scenes import ensure_digit_scenes, make_digit_scenes, make_scene
from mixdet.digit_scenes import files as digit_scenes
from mixdet.digit_scenes.drawing import SIZE, SPLITS, digit_indices, load_samples
from mixdet.digit_scenes.files import read_parameters
from mixdet.errors import MixDetError

FEW = {"train": 6, "val": 4, "progress": False}


def bytes_of(root: Path) -> dict[str, str]:
    """Return a dict from the path of every file in a folder to its SHA-256."""
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return make_digit_scenes(
        tmp_path_factory.mktemp("data") / "scenes", train=300, val=100, progress=False
    )


@pytest.fixture(scope="module")
def annotations(scenes) -> dict[str, dict]:
    files = {split: scenes / "annotations" / f"instances_{split}.json" for split in SPLITS}
    return {split: json.loads(file.read_text()) for split, file in files.items()}


def test_the_seed_determines_every_byte(tmp_path):
    first = bytes_of(make_digit_scenes(tmp_path / "a", seed=3, **FEW))
    again = bytes_of(make_digit_scenes(tmp_path / "b", seed=3, **FEW))
    other = bytes_of(make_digit_scenes(tmp_path / "c", seed=4, **FEW))
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_splits_share_no_digit_and_no_region(annotations):
    allowed = {split: annotations[split]["info"]["digit_scenes"] for split in SPLITS}
    assert not set(allowed["train"]["digits"]) & set(allowed["val"]["digits"])
    assert len(allowed["train"]["digits"]) + len(allowed["val"]["digits"]) == 1797
    labels = load_samples()[1]
    for split in SPLITS:
        assert np.bincount(labels[digit_indices(split)]).min() > 30
        for annotation in annotations[split]["annotations"]:
            assert annotation["digit"] in allowed[split]["digits"]
            assert labels[annotation["digit"]] == annotation["category_id"] - 1
        for image in annotations[split]["images"]:
            x1, y1, x2, y2 = image["crop"]
            left, top, right, bottom = allowed[split]["photo_regions"][image["photograph"]]
            assert left <= x1 < x2 <= right
            assert top <= y1 < y2 <= bottom
    for name, train in allowed["train"]["photo_regions"].items():
        val = allowed["val"]["photo_regions"][name]
        assert train[2] <= val[0]  # the region of train ends left of the region of val


def test_objects_are_small_medium_and_large(annotations):
    for content in annotations.values():
        areas = np.array([annotation["area"] for annotation in content["annotations"]])
        assert (areas < 32**2).mean() >= 0.30
        assert (areas * (192 / SIZE) ** 2 < 32**2).mean() >= 0.28  # at 192 x 192
        assert (areas > SIZE**2 / 4).mean() <= 0.15
        assert (areas >= 96**2).any()
        assert ((areas >= 32**2) & (areas < 96**2)).mean() > 0.3


def test_some_images_are_empty_and_every_class_occurs(annotations):
    for content in annotations.values():
        full = {annotation["image_id"] for annotation in content["annotations"]}
        assert 0.01 <= 1 - len(full) / len(content["images"]) <= 0.10
        assert {a["category_id"] for a in content["annotations"]} == set(range(1, 11))
        assert max(np.bincount([a["image_id"] for a in content["annotations"]])) == 5


def test_pycocotools_reads_the_files(scenes, annotations):
    for split, content in annotations.items():
        coco = COCO(scenes / "annotations" / f"instances_{split}.json")
        assert len(coco.getImgIds()) == len(content["images"])
        assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(
            "0123456789"
        )
        assert len({annotation["id"] for annotation in content["annotations"]}) == len(
            content["annotations"]
        )
        licenses = {entry["id"] for entry in content["licenses"]}
        for image in content["images"]:
            with Image.open(scenes / split / image["file_name"]) as file:
                assert file.size == (image["width"], image["height"])
            assert image["license"] in licenses
        for annotation in content["annotations"]:
            x, y, width, height = annotation["bbox"]
            assert min(x, y) >= 0
            assert max(x + width, y + height) <= SIZE
            assert annotation["area"] == width * height
            assert annotation["iscrowd"] == 0


def test_drawing_scenes_imports_neither_torch_nor_mmdet():
    code = (
        "import sys, mixdet.digit_scenes.files as d; d.make_scene('train', 0); "
        "sys.exit(bool({'torch', 'mmdet', 'mmengine'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class TestFolder:
    def test_a_second_call_draws_nothing(self, tmp_path, monkeypatch):
        root = make_digit_scenes(tmp_path / "scenes", **FEW)
        before = bytes_of(root)
        monkeypatch.setattr(digit_scenes, "make_scene", lambda *_: pytest.fail("drawn twice"))
        assert make_digit_scenes(root, **FEW) == root
        assert bytes_of(root) == before

    def test_ensure_keeps_scenes_drawn_with_other_arguments(self, tmp_path, monkeypatch):
        root = make_digit_scenes(tmp_path / "scenes", seed=7, **FEW)
        monkeypatch.setattr(digit_scenes, "make_scene", lambda *_: pytest.fail("drawn again"))
        assert ensure_digit_scenes(root, progress=False) == root

    def test_scenes_of_an_older_version_are_replaced(self, tmp_path, monkeypatch):
        root = tmp_path / "scenes"
        with monkeypatch.context() as patch:
            patch.setattr(digit_scenes, "VERSION", 0)
            make_digit_scenes(root, seed=7, **FEW)
        ensure_digit_scenes(root, progress=False)
        current = {"version": digit_scenes.VERSION, "train": 6, "val": 4, "seed": 7}
        assert read_parameters(root) == current
        make_digit_scenes(root, train=2, val=1, progress=False)
        assert len(list(root.rglob("*.jpg"))) == 3
        assert [file.name for file in tmp_path.iterdir()] == ["scenes"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_an_interrupted_call_leaves_no_file(self, tmp_path, monkeypatch, error):
        def stop(split, index, seed):
            if split == "val":
                raise error
            return make_scene(split, index, seed)

        monkeypatch.setattr(digit_scenes, "make_scene", stop)
        with pytest.raises(error):
            make_digit_scenes(tmp_path / "scenes", **FEW)
        assert not list(tmp_path.iterdir())

    def test_a_killed_process_leaves_no_half_data_set(self, tmp_path):
        code = (
            "import os; from mixdet.digit_scenes import files as d; make = d.make_scene\n"
            "d.make_scene = lambda s, i, seed: os._exit(9) if i == 3 else make(s, i, seed)\n"
            f"d.make_digit_scenes({str(tmp_path / 'scenes')!r}, train=6, val=2, progress=False)"
        )
        assert subprocess.run([sys.executable, "-c", code]).returncode == 9
        assert not (tmp_path / "scenes").exists()
        (left,) = tmp_path.iterdir()
        os.utime(left, (0, 0))  # the next run removes leftovers that are older than an hour
        make_digit_scenes(tmp_path / "scenes", **FEW)
        assert [file.name for file in tmp_path.iterdir()] == ["scenes"]

    def test_a_foreign_folder_is_refused(self, tmp_path):
        root = tmp_path / "scenes"
        root.mkdir()
        (root / "thesis.txt").write_text("years of work")
        with pytest.raises(MixDetError, match=r"thesis\.txt"):
            make_digit_scenes(root, **FEW)
        assert (root / "thesis.txt").read_text() == "years of work"

    def test_a_folder_with_scenes_and_a_foreign_file_is_refused(self, tmp_path):
        root = make_digit_scenes(tmp_path / "scenes", **FEW)
        shutil.copy(root / "train" / "000001.jpg", root / "train" / "mine.jpg")
        before = bytes_of(root)
        with pytest.raises(MixDetError, match=r"mine\.jpg"):
            make_digit_scenes(root, train=2, val=1, progress=False)
        assert bytes_of(root) == before

    def test_an_empty_folder_is_filled(self, tmp_path):
        root = tmp_path / "scenes"
        root.mkdir()
        make_digit_scenes(root, **FEW)
        assert len(list(root.rglob("*.jpg"))) == 10

    def test_a_file_in_place_of_the_folder_is_refused(self, tmp_path):
        (tmp_path / "scenes").write_text("")
        with pytest.raises(MixDetError, match="scenes"):
            make_digit_scenes(tmp_path / "scenes", **FEW)

    def test_a_folder_below_a_file_is_refused(self, tmp_path):
        (tmp_path / "data").write_text("")
        with pytest.raises(MixDetError, match="cannot write the digit scenes"):
            make_digit_scenes(tmp_path / "data" / "scenes", **FEW)
