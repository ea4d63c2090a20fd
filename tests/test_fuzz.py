"""Random damaged files are read, or refused with a `MixDetError`."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from random import Random
from types import SimpleNamespace

import cv2
import numpy as np
import onnxruntime
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image

from mixdet.data_check import DataReport, quick_check
from mixdet.errors import MixDetError
from mixdet.images import as_rgb, decode_fully, read_image_file
from mixdet.inference import Detector
from tests.fuzz import damaged, fuzz, json_file, with_valid_checksums
from tests.tiny import CLASSES

ANNOTATIONS, IMAGES, MANIFESTS = 30_000, 30_000, 40_000  # numbers of files in the heavy tests
OUTSIDE_COLOR = (255, 0, 254)  # the color of an image that the data set must not read
LIMITS = {"max_pixels": 10_000, "max_bytes": 1_000_000}


def file_counts(many: int):
    """Run a test with 20 files, and as a heavy test with `many` files."""
    return pytest.mark.parametrize("count", [20, pytest.param(many, marks=pytest.mark.heavy)])


@pytest.fixture
def folder():
    """An empty folder, in memory if possible."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder).resolve()


def dataset_config(root, **options) -> dict:
    return {
        "type": "SafeCocoDataset",
        "data_root": str(root),
        "metainfo": {"classes": CLASSES},
        "ann_file": "annotations.json",
        "data_prefix": {"img": "images/"},
        "test_mode": True,
        "serialize_data": False,
        "pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}],
        **LIMITS,
        **options,
    }


@file_counts(ANNOTATIONS)
def test_random_annotation_files_are_read_or_refused(folder, count):
    root, outside = folder / "data", folder / "outside"
    images = root / "images"
    images.mkdir(parents=True)
    outside.mkdir()
    for file, color in (
        (images / "1.png", 9),
        (images / "2.png", 9),
        (outside / "c.png", OUTSIDE_COLOR),
    ):
        Image.new("RGB", (8, 8), (color,) * 3 if color == 9 else color).save(file)
    (images / "link.png").symlink_to(outside / "c.png")
    (images / "linked").symlink_to(outside)
    (images / "inner.png").symlink_to("1.png")
    os.mkfifo(images / "pipe")
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
    dataset = DATASETS.build({**options, "lazy_init": True})

    def make(rng: Random) -> bytes:
        images = [
            {**image, "file_name": rng.choice(names) if rng.random() < 0.3 else "1.png"}
            for image in content["images"]
        ]
        return json_file(rng, {**content, "images": images}, names)

    def read() -> None:
        error = None
        try:
            problems = quick_check(cfg)
            report = DataReport([], problems, None)
            json.dumps(report.as_dict())
            assert len(report.text().splitlines()) < 300
        except MixDetError as refusal:  # raised below, after the data set has read the file too
            error = refusal
        fresh = copy.copy(dataset)
        fresh.full_init()
        for index in range(len(fresh)):
            assert not (fresh[index]["img"] == OUTSIDE_COLOR[::-1]).all()
        if error:
            raise error

    fuzz(make, root / "annotations.json", read, root, count)


def images_of_every_format() -> list[bytes]:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (10, 12, 3), dtype=np.uint8))
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
        image.save(file, kind, **options)
        files.append(file.getvalue())
    return files


@file_counts(IMAGES)
def test_random_image_files_are_read_or_refused(folder, count):
    name = folder / "images" / "1"
    name.parent.mkdir()
    image = {"id": 1, "file_name": "1", "width": 12, "height": 10}
    content = {"images": [image], "annotations": [], "categories": []}
    (folder / "annotations.json").write_text(json.dumps(content))
    dataset = DATASETS.build(dataset_config(folder))
    valid = images_of_every_format()

    def make(rng: Random) -> bytes:
        if rng.random() < 0.1:
            return rng.choice([b"", rng.choice(valid)[:12]]) + rng.randbytes(rng.randrange(300))
        content = damaged(rng, rng.choice(valid), [0, 1, 1, 2, 3, 5], valid)
        return with_valid_checksums(content) if rng.random() < 0.5 else content

    def read() -> None:
        height, width = dataset[0]["img"].shape[:2]
        assert height * width <= LIMITS["max_pixels"]
        image, _ = read_image_file(name, dataset.limits)
        decode_fully(name, image)
        assert as_rgb(name).shape == (height, width, 3)

    cv2.utils.logging.setLogLevel(0)
    fuzz(make, name, read, folder, count)


@file_counts(MANIFESTS)
def test_random_manifests_are_read_or_refused(folder, monkeypatch, count):
    model = folder / "model.onnx"
    model.write_bytes(b"a network")
    (folder / "model.bin").write_bytes(b"weights")

    boxes = np.tile(np.float32([1, 1, 5, 5]), (1, 6, 1))
    outputs = {
        "raw": [boxes, np.full((1, 6, 2), 0.6, np.float32)],
        "end2end": [boxes, np.full((1, 6), 0.6, np.float32), np.zeros((1, 6), np.int64)],
    }

    class Session:
        """A stand-in for a session of ONNX Runtime. It finds the same boxes in every image."""

        def __init__(self, *args, **options) -> None:
            pass

        def get_inputs(self) -> list:
            return [SimpleNamespace(shape=(1, 8, 12, 3))]

        def get_modelmeta(self) -> SimpleNamespace:
            return SimpleNamespace(custom_metadata_map={})

        def run(self, names, inputs) -> list[np.ndarray]:
            return outputs[json.loads((folder / "mixdet.json").read_text())["kind"]]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
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
    image = np.zeros((20, 30, 3), np.uint8)

    def read() -> None:
        detections = Detector(folder)(image)
        json.dumps(detections.as_dict())

    def make(rng: Random) -> bytes:
        return json_file(rng, {**content, "kind": rng.choice(["raw", "end2end"])}, words)

    fuzz(make, folder / "mixdet.json", read, folder, count)
