"""The data set of digit scenes, which draws its images on first use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mixdet.plugin

import numpy as np
import pytest
from mmdet.registry import DATASETS

from mixdet.datasets import DigitScenes
from mixdet.digit_scenes import files as digit_scenes
from mixdet.digit_scenes import make_digit_scenes
from mixdet.errors import MixDetError

VAL = {"ann_file": "annotations/instances_val.json", "data_prefix": {"img": "val/"}}


def build(root: Path, **kwargs) -> DigitScenes:
    return DATASETS.build({"type": "DigitScenes", "data_root": str(root), "pipeline": [], **kwargs})


@pytest.fixture
def few_scenes(monkeypatch):
    """Let the data set draw only a few scenes."""

    def make(root, **kwargs):
        return make_digit_scenes(root, **{"train": 8, "val": 3, "progress": False, **kwargs})

    monkeypatch.setattr(digit_scenes, "make_digit_scenes", make)


def test_scenes_are_drawn_on_first_use_and_read_as_written(tmp_path, few_scenes):
    root = tmp_path / "scenes"
    assert len(build(root)) == 8
    dataset = build(root, **VAL)
    assert len(dataset) == 3
    assert dataset.metainfo["classes"] == tuple("0123456789")
    written = json.loads((root / VAL["ann_file"]).read_text())
    for index in range(3):
        info = dataset.get_data_info(index)
        assert Path(info["img_path"]).is_file()
        want = [a for a in written["annotations"] if a["image_id"] == info["img_id"]]
        assert [i["bbox_label"] for i in info["instances"]] == [a["category_id"] - 1 for a in want]
        for instance, annotation in zip(info["instances"], want, strict=True):
            x1, y1, x2, y2 = instance["bbox"]
            assert np.allclose([x1, y1, x2 - x1, y2 - y1], annotation["bbox"])


def test_scenes_that_were_drawn_with_other_arguments_are_used(tmp_path, few_scenes):
    make_digit_scenes(tmp_path / "scenes", train=5, val=2, seed=9, progress=False)
    assert len(build(tmp_path / "scenes")) == 5


def test_a_folder_with_the_users_own_annotations_is_used_and_not_changed(tmp_path, few_scenes):
    root = make_digit_scenes(tmp_path / "scenes", train=2, val=2, progress=False)
    own = tmp_path / "own"
    (own / "annotations").mkdir(parents=True)
    shutil.copy(root / "annotations" / "instances_train.json", own / "annotations")
    assert len(build(own)) == 2
    assert [file.name for file in own.iterdir()] == ["annotations"]


def test_a_folder_with_other_files_is_refused(tmp_path, few_scenes):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(MixDetError, match=r"notes\.txt"):
        build(tmp_path)


def test_a_missing_annotation_file_of_another_split_is_named(tmp_path, few_scenes):
    with pytest.raises(MixDetError, match=r"instances_test\.json is missing"):
        build(tmp_path / "scenes", ann_file="annotations/instances_test.json")


def test_ranks_other_than_0_wait_and_draw_nothing(tmp_path, few_scenes, monkeypatch):
    import mixdet.datasets.digit_scenes as module

    waited = []
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(module, "barrier", lambda: waited.append(True))
    with pytest.raises(MixDetError, match="is missing"):
        build(tmp_path / "scenes")
    assert waited == [True]
    assert not list(tmp_path.iterdir())
