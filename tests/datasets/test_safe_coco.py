"""Names that lead out of the folder and huge images are refused. Broken images are replaced."""

from __future__ import annotations

import json
import os
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from PIL import Image

from mixdet import launch
from mixdet.datasets import SampleIndex
from mixdet.errors import MixDetError
from mixdet.images import ImageFileError, ImageLimits, read_image_file, resolve_inside
from tests.tiny import CLASSES, IMAGES, write_config


def build(data, **options):
    return DATASETS.build(
        {
            "type": "SafeCocoDataset",
            "data_root": str(data),
            "metainfo": {"classes": CLASSES},
            "ann_file": "annotations/instances_train2017.json",
            "data_prefix": {"img": "train2017/"},
            "pipeline": [
                {"type": "SeedSample"},
                {"type": "LoadImageFromFile"},
                {"type": "LoadAnnotations", "with_bbox": True},
                {"type": "RandomFlip", "prob": 0.5},
                {"type": "PackDetInputs"},
            ],
            **options,
        }
    )


def rename(data, name):
    file = data / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = name
    file.write_text(json.dumps(content))


def write_decompression_bomb(path, side=60_000):
    """Write a PNG of a few bytes whose header states 3.6 billion pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000)))):
        content += struct.pack(">I", len(body)) + kind + body
        content += struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(content)


def damage(data, *names):
    for name in names:
        (data / "train2017" / f"{name}.png").write_bytes(b"no image")


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../val2017/1.png", "a/../../x.png", "", "a\0b", "http://a/b", "file:///etc/x"],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(images_copy, name):
    rename(images_copy, name)
    with pytest.raises(MixDetError, match="file_name"):
        build(images_copy)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_out_of_the_folder_is_refused_and_not_opened(images_copy, kind):
    folder = images_copy / "train2017"
    if kind == "file":
        (folder / "1.png").unlink()
        (folder / "1.png").symlink_to(images_copy / "val2017" / "1.png")
    else:
        (folder / "inner").symlink_to(images_copy / "val2017")
        rename(images_copy, "inner/1.png")
    dataset = build(images_copy, max_broken=1.0)  # allows broken images, not links
    with pytest.raises(
        MixDetError, match=re.escape(f"a link to {images_copy}/val2017/1.png")
    ) as error:
        dataset[0]
    assert not isinstance(error.value, ImageFileError)


def test_a_pipe_is_refused_without_waiting_for_its_data(images_copy):
    (images_copy / "train2017" / "1.png").unlink()
    os.mkfifo(images_copy / "train2017" / "1.png")
    with pytest.raises(MixDetError, match="pipe"):
        build(images_copy)[0]


def test_links_within_the_folder_and_a_linked_root_are_followed(images_copy, tmp_path):
    (images_copy / "train2017" / "1.png").rename(images_copy / "train2017" / "moved.png")
    (images_copy / "train2017" / "1.png").symlink_to("moved.png")
    (tmp_path / "linked").symlink_to(images_copy)
    assert build(tmp_path / "linked")[0]["inputs"].shape == (3, 64, 64)
    inside = resolve_inside(tmp_path / "linked", "train2017/1.png")
    assert inside == (images_copy / "train2017" / "moved.png").resolve()


def test_images_over_a_limit_are_refused_before_they_are_decoded(images_copy, monkeypatch):
    folder = images_copy / "train2017"
    write_decompression_bomb(folder / "1.png")
    for decoder in ("mmcv.imfrombytes", "PIL.ImageFile.ImageFile.load"):
        monkeypatch.setattr(decoder, lambda *a, **k: pytest.fail("decoded"))
    for index, options, words in (
        (0, {}, "too many pixels"),  # over Pillow's own limit
        (1, {"max_pixels": 64 * 64 - 1}, "64 x 64 pixels, more than max_pixels=4,095"),
        (1, {"max_bytes": 100}, "bytes, more than max_bytes=100"),
    ):
        with pytest.raises(MixDetError, match=words):
            build(images_copy, **options)[index]


def test_reading_a_header_decodes_nothing(images_copy, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    assert read_image_file(images_copy / "train2017" / "1.png", ImageLimits())[1] == (64, 64)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_jpeg_is_refused_and_a_complete_one_is_read(coco_sample, tmp_path, share):
    source = next((coco_sample / "val2017").iterdir())
    content = source.read_bytes()
    assert read_image_file(source, ImageLimits())[0] == content
    (tmp_path / "half.jpg").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageFileError, match="cut short"):
        read_image_file(tmp_path / "half.jpg", ImageLimits())


def test_a_truncated_image_with_a_complete_thumbnail_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8))
    image.resize((16, 12)).save(tmp_path / "small.jpg")
    exif = b"Exif\0\0" + (tmp_path / "small.jpg").read_bytes()
    image.save(tmp_path / "a.jpg", exif=exif)
    content = (tmp_path / "a.jpg").read_bytes()
    assert content.count(b"\xff\xd9") == 2
    assert read_image_file(tmp_path / "a.jpg", ImageLimits())[1] == (120, 90)
    (tmp_path / "a.jpg").write_bytes(content[:-300])
    with pytest.raises(ImageFileError, match="cut short"):
        read_image_file(tmp_path / "a.jpg", ImageLimits())


def test_a_broken_image_is_replaced_by_one_that_the_seed_chooses(images_copy):
    damage(images_copy, 1, 2)
    (images_copy / "train2017" / "3.png").unlink()

    def fetch(order, key=(0, 0)):
        dataset = build(images_copy, max_broken=0.5)
        return {index: dataset[SampleIndex(index, (*key, index))] for index in order}

    forward, backward, other = fetch(range(6)), fetch(range(5, -1, -1)), fetch(range(6), (1, 0))
    for index, sample in forward.items():
        assert torch.equal(sample["inputs"], backward[index]["inputs"])
        path = sample["data_samples"].img_path
        assert (path == str(images_copy / "train2017" / f"{index + 1}.png")) == (index > 2)
    replaced = [
        [epoch[index]["data_samples"].img_path for index in range(3)] for epoch in (forward, other)
    ]
    assert replaced[0] != replaced[1]


def test_a_data_set_with_only_broken_images_is_refused(images_copy):
    damage(images_copy, *range(1, IMAGES + 1))
    with pytest.raises(MixDetError, match=f"{IMAGES} of {IMAGES} training images"):
        build(images_copy, max_broken=1.0)[0]


def test_in_evaluation_a_broken_image_is_not_replaced(images_copy):
    damage(images_copy, 1)
    with pytest.raises(ImageFileError, match=r"1\.png"):
        build(images_copy, max_broken=1.0, test_mode=True)[0]


def test_an_error_of_a_transform_is_not_taken_for_a_broken_image(images_copy):
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "ImageToTensor", "keys": ["no"]}]
    dataset = build(images_copy, max_broken=1.0, pipeline=pipeline)
    with pytest.raises(KeyError):
        dataset[0]


def train(tmp_path, data, workers, share):
    extra = (
        f"train_dataloader['dataset'].update(type='SafeCocoDataset', max_broken={share})\n"
        f"train_dataloader.update(num_workers={workers}, persistent_workers={workers > 0})\n"
    )
    launch.train(str(write_config(tmp_path, data, extra=extra)))
    (log,) = (tmp_path / "work").glob("*/*.log")
    return log.read_text()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.usefixtures("quick")
def test_training_names_and_replaces_broken_images_up_to_max_broken(images_copy, tmp_path, workers):
    damage(images_copy, 4, 9)
    log = train(tmp_path, images_copy, workers, share=2 / IMAGES)
    for name in (4, 9):  # each is logged once, although there are two epochs
        assert log.count(f"{name}.png: the image is damaged, or not an image; another image") == 1
    assert f"2 of {IMAGES} training images are broken" in log
    assert (tmp_path / "work" / "epoch_2.pth").is_file()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.usefixtures("quick")
def test_training_with_more_broken_images_than_max_broken_stops(images_copy, tmp_path, workers):
    damage(images_copy, 4, 9, 11)
    with pytest.raises(MixDetError) as error:
        train(tmp_path, images_copy, workers, share=2 / IMAGES)
    assert "\n" not in str(error.value)
    assert re.match(rf"{images_copy}/train2017/(4|9|11)\.png: ", str(error.value))
    summary = f"3 of {IMAGES} training images are broken, and the limit is max_broken=0.142857"
    assert summary in str(error.value)
    assert not list(tmp_path.rglob("*.pth"))


def test_a_png_with_a_chunk_longer_than_the_file_is_refused(images_copy):
    file = images_copy / "train2017" / "1.png"
    content = file.read_bytes()
    at = content.index(b"IDAT") - 4
    file.write_bytes(content[:at] + struct.pack(">I", 10**9) + content[at + 4 :])
    with pytest.raises(ImageFileError, match="cut short"):
        build(images_copy, test_mode=True)[0]


@pytest.mark.parametrize("value", [10**400, 2**63, float("inf"), 1e300])
def test_a_box_with_huge_or_infinite_coordinates_is_refused(images_copy, value):
    file = images_copy / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"][2] = value
    file.write_text(json.dumps(content))
    with pytest.raises(MixDetError, match=r"annotations\[0\]\.bbox: 4 finite numbers"):
        build(images_copy)
