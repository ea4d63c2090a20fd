"""Whatever stands in files from others, they are read, or refused in our words and nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import os

import cv2
import numpy as np
import pytest
from hypothesis import strategies as st
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image

from mixdet.analysis.data_check import quick_check
from mixdet.analysis.data_check.report import DataReport
from mixdet.datasets.pictures import decode_fully, read_picture
from mixdet.deploy import exported
from mixdet.inference import Detector, as_rgb
from tests.fuzz import damaged, fuzz, json_files, with_right_sums
from tests.tiny import CLASSES

ANNOTATIONS, PICTURES, MANIFESTS = 40_000, 40_000, 20_000
CANARY = (255, 0, 254)  # the colour of what lies outside the folder
LIMITS = {"max_pixels": 10_000, "max_bytes": 1_000_000}


def inputs(many: int):
    return pytest.mark.parametrize("count", [150, pytest.param(many, marks=pytest.mark.heavy)])


def dataset_config(root, **options) -> dict:
    return {
        "type": "SafeCocoDataset",
        "data_root": str(root),
        "metainfo": {"classes": CLASSES},
        "ann_file": "annotations.json",
        "data_prefix": {"img": "pictures/"},
        "test_mode": True,
        "serialize_data": False,
        "pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}],
        **LIMITS,
        **options,
    }


@inputs(ANNOTATIONS)
def test_annotation_files(tmp_path, count):
    root, outside = tmp_path / "data", tmp_path / "outside"
    folder = root / "pictures"
    folder.mkdir(parents=True)
    outside.mkdir()
    for file, colour in ((folder / "1.png", 9), (folder / "2.png", 9), (outside / "c.png", CANARY)):
        Image.new("RGB", (8, 8), (colour,) * 3 if colour == 9 else colour).save(file)
    (folder / "link.png").symlink_to(outside / "c.png")
    (folder / "linked").symlink_to(outside)
    (folder / "inner.png").symlink_to("1.png")
    os.mkfifo(folder / "pipe")
    names = [
        "1.png",
        "inner.png",
        "pipe",
        "link.png",
        "linked/c.png",
        "linked",
        "./1.png",
        "1.png/",
    ]
    names += [str(outside / "c.png"), "../../outside/c.png", "a/../../../outside/c.png", "~/x"]
    names += [f"file://{outside}/c.png", "http://localhost/c.png", "s3://a/c.png", "/dev/zero"]
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 8, "height": 8} for i in (1, 2)],
        "annotations": [{"id": 1, **box}, {"id": 2, **box, "image_id": 2}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)],
    }
    options = dataset_config(root)
    cfg = Config({"train_dataloader": {"dataset": options}, "val_dataloader": {"dataset": options}})
    named = st.tuples(*2 * [st.sampled_from(names)]).map(
        lambda pair: [
            {**image, "file_name": name}
            for image, name in zip(content["images"], pair, strict=True)
        ]
    )
    files = named.flatmap(lambda images: json_files({**content, "images": images}, names))

    def read() -> None:
        error = None
        try:
            problems = quick_check(cfg)
            report = DataReport([], problems, None)
            json.dumps(report.as_dict())
            assert len(report.text().splitlines()) < 300
        except exported.MixDetError as refusal:  # the data set has to stand by itself
            error = refusal
        dataset = DATASETS.build(options)
        for index in range(len(dataset)):
            assert not (dataset[index]["img"] == CANARY[::-1]).all()
        if error:
            raise error

    fuzz(files, read, root, count, (root / "annotations.json").write_bytes)


def pictures_of_every_format() -> list[bytes]:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (10, 12, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = []
    for kind, options in (
        ("PNG", {}),
        ("PNG", {"exif": exif}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": exif}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": exif}),
        ("PPM", {}),
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
        ("AVIF", {"speed": 10}),
    ):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        files.append(file.getvalue())
    return files


@inputs(PICTURES)
def test_picture_files(tmp_path, count):
    name = tmp_path / "pictures" / "1"
    name.parent.mkdir()
    image = {"id": 1, "file_name": "1", "width": 12, "height": 10}
    content = {"images": [image], "annotations": [], "categories": []}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    dataset = DATASETS.build(dataset_config(tmp_path))
    valid = pictures_of_every_format()
    files = st.sampled_from(valid).flatmap(lambda file: damaged(file, others=tuple(valid)))
    begins = st.sampled_from([b"", *(file[:12] for file in valid)])
    raw = st.tuples(begins, st.binary(max_size=300)).map(b"".join)

    def read() -> None:
        height, width = dataset[0]["img"].shape[:2]
        assert height * width <= LIMITS["max_pixels"]
        picture, _ = read_picture(name, dataset.limits)
        decode_fully(name, picture)
        assert as_rgb(name).shape == (height, width, 3)

    cv2.setLogLevel(0)
    fuzz(files | files.map(with_right_sums) | raw, read, tmp_path, count, name.write_bytes)


@inputs(MANIFESTS)
def test_manifests_of_exported_folders(tmp_path, monkeypatch, count):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"a network")
    (tmp_path / "model.bin").write_bytes(b"weights")
    shape = (1, 8, 12, 3)

    def stand_in(path):
        boxes = np.tile(np.float32([1, 1, 5, 5]), (1, 6, 1))
        outputs = {"raw": [boxes, np.full((1, 6, 2), 0.6, np.float32)]}
        outputs["end2end"] = [boxes, np.full((1, 6), 0.6, np.float32), np.zeros((1, 6), np.int64)]
        return shape, lambda inputs: outputs[kind()]

    def kind() -> str:
        return json.loads((tmp_path / "mixdet.json").read_text())["kind"]

    monkeypatch.setattr(exported, "_onnx", stand_in)
    sums = {"model.onnx": hashlib.sha256(model.read_bytes()).hexdigest()}
    levels = [{"anchors": 4, "cells": [2, 2]}, {"anchors": 2, "cells": [1, 2]}]
    rule = {"score_thr": 0.02, "iou_thr": 0.5, "nms_pre": 4, "max_per_img": 5, "min_bbox_size": -1}
    content = {
        "format": 1,
        "input": {"width": 12, "height": 8, "channels": "BGR"},
        "classes": list(CLASSES),
        "levels": levels,
        "postprocess": rule,
        "files": sums,
    }
    words = ["raw", "end2end", "../model.onnx", "model.xml", "RGB", *sums, *sums.values()]
    files = st.sampled_from(["raw", "end2end"]).flatmap(
        lambda kind: json_files({**content, "kind": kind}, words)
    )
    picture = np.zeros((20, 30, 3), np.uint8)

    def read() -> None:
        found = Detector(tmp_path)(picture)
        json.dumps(found.as_dict())

    fuzz(files, read, tmp_path, count, (tmp_path / "mixdet.json").write_bytes)
