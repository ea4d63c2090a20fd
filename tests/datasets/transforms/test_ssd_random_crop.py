"""Pixels and boxes equal the results of mmdet's steps, and files are read as cv2 reads them."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import transforms as mmdet_transforms
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from PIL import Image
from scipy.stats import ks_2samp

from mixdet.datasets import SSDRandomCrop
from mixdet.datasets.transforms.crop_plan import CropPlan
from mixdet.datasets.transforms.photometric import (
    PhotometricDistortion,
    PhotometricDraw,
    distort,
)
from mixdet.datasets.transforms.ssd_random_crop import Annotations
from mixdet.errors import MixDetError

SIZE = 320
MEAN = (123.675, 116.28, 103.53)


def sample(path, boxes, **more) -> dict:
    boxes = np.float32(boxes).reshape(-1, 4)
    return {
        "img_path": str(path),
        "gt_bboxes": HorizontalBoxes(torch.from_numpy(boxes.copy())),
        "gt_bboxes_labels": np.arange(len(boxes)),
        "gt_ignore_flags": np.zeros(len(boxes), bool),
        **more,
    }


def loaded(path, boxes) -> tuple[dict, Annotations]:
    results = sample(path, boxes)
    return results, Annotations.from_results(results)


@pytest.fixture(scope="module")
def photo(coco_sample):
    """A COCO image that is 400 pixels wide."""
    paths = sorted((coco_sample / "train2017").glob("*.jpg"))
    return next(path for path in paths if cv2.imread(str(path)).shape[1] == 400)


# The first three values of a plan describe the canvas: the ratio of its side to the image's side,
# and the left and top of the image on it. The next four are the width, height, left and top of the
# crop on the canvas. The last one says whether the crop is flipped.
PLANS = [
    (1.0, 0, 0, 400, 0, 0, 0, False),  # only a resize; 0 stands for the image's height
    (1.0, 0, 0, 211, 187, 63, 21, True),
    (2.6, 333, 57, 520, 401, 111, 13, False),
    (3.3, 500, 300, 257, 190, 611, 333, True),
]


@pytest.mark.parametrize("drawn", PLANS)
def test_pixels_and_boxes_equal_mmdets_steps(photo, monkeypatch, drawn):
    ratio, left, top, w, h, x, y, flip = drawn
    image = cv2.imread(str(photo))
    h = h or image.shape[0]
    boxes = [[100, 60, 240, 180], [10, 5, 60, 50], [190, 120, 390, 200]]
    draws = iter([0.1, ratio, left, top, w, h, x, y])
    random = SimpleNamespace(uniform=lambda *_: next(draws), choice=lambda _: 0)
    monkeypatch.setattr(mmdet_transforms, "random", random)
    expected = sample(photo, boxes)
    for step in [
        dict(type="LoadImageFromFile"),
        dict(type="Expand", mean=MEAN, to_rgb=True, ratio_range=(1, 4)),
        dict(type="MinIoURandomCrop"),
        dict(type="Resize", scale=(SIZE, SIZE), keep_ratio=False),
        dict(type="RandomFlip", prob=float(flip)),
    ]:
        expected = TRANSFORMS.build(step)(expected)

    crop = (x - left, y - top, x - left + w, y - top + h)
    kept = np.isin(np.arange(3), expected["gt_bboxes_labels"])
    ours = SSDRandomCrop((SIZE, SIZE)).apply(
        *loaded(photo, boxes), image, CropPlan(crop, kept, flip), 1
    )
    np.testing.assert_array_equal(ours["img"], expected["img"])
    assert torch.allclose(ours["gt_bboxes"].tensor, expected["gt_bboxes"].tensor, atol=1e-3)
    assert ours["scale_factor"] == pytest.approx(expected["scale_factor"])
    for key in ("img_shape", "flip", "flip_direction"):
        assert ours[key] == expected[key]
    for key in ("gt_bboxes_labels", "gt_ignore_flags"):
        np.testing.assert_array_equal(ours[key], expected[key])


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_the_canvas_is_distorted_like_the_image(monkeypatch, reduction):
    """Outside the image, the canvas has one color, and the transform distorts this color once."""
    rng = np.random.default_rng(reduction)
    image = rng.integers(0, 256, (33, 47, 3), dtype=np.uint8)
    height, width = (reduction * side for side in image.shape[:2])
    for _ in range(300):
        x, y = rng.integers(-3 * width, 2 * width), rng.integers(-3 * height, 2 * height)
        w, h = rng.integers(1, 4 * width), rng.integers(1, 4 * height)
        plan = CropPlan((x, y, x + w, y + h), np.ones(0, bool), rng.random() < 0.5)
        draw = PhotometricDraw(
            rng.uniform(-32, 32), rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.5), 9, (2, 0, 1)
        )
        monkeypatch.setattr(PhotometricDistortion, "draw", lambda _, draw=draw: draw)
        size = tuple(rng.integers(1, 90, 2).tolist())
        plain, distorted = (
            SSDRandomCrop(size, photometric=photometric).apply(
                *loaded("none", []), image, plan, reduction
            )["img"]
            for photometric in (None, {})
        )
        expected = distort(np.ascontiguousarray(plain), draw)
        np.testing.assert_allclose(distorted, expected, atol=1e-3)


@pytest.mark.parametrize(("side", "reduction"), [(120, 2), (60, 4), (30, 8)])
def test_a_crop_of_a_reduced_image_equals_the_averaged_full_size_image(photo, side, reduction):
    """Each output pixel is close to the mean of the full-size pixels at the same place."""
    transform = SSDRandomCrop((side, side))
    whole = cv2.imread(str(photo))
    crop = (35, 4, 35 + 8 * side + 3, 4 + 8 * side + 5) if side == 30 else (19, 3, 387, 251)
    plan = CropPlan(crop, np.ones(1, bool), False)
    x1, y1 = (edge // reduction * reduction for edge in crop[:2])
    x2, y2 = (-(-edge // reduction) * reduction for edge in crop[2:])
    image = cv2.imread(str(photo), {2: 17, 4: 33, 8: 65}[reduction])
    ours = transform.apply(*loaded(photo, [[40, 20, 200, 220]]), image, plan, reduction)
    mean = cv2.resize(whole[y1:y2, x1:x2], (side, side), interpolation=cv2.INTER_AREA)
    scale = np.divide(side, [x2 - x1, y2 - y1])
    expected = (np.array([[40, 20], [200, 220]]) - [x1, y1]) * scale
    np.testing.assert_allclose(ours["gt_bboxes"].tensor.reshape(2, 2), expected, atol=1e-3)

    def error(dx: int, dy: int) -> float:
        a = ours["img"][1 + dy : side - 1 + dy, 1 + dx : side - 1 + dx].astype(float)
        return np.abs(a - mean[1:-1, 1:-1]).mean()

    shifted = [error(dx, dy) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    assert error(0, 0) < 0.5 * min(shifted)


def test_a_jpeg_is_decoded_as_small_as_the_output_allows(photo, monkeypatch):
    """Each side of the decoded crop has 1 to 2 pixels per pixel of the output, where possible."""
    widths, imdecode = [], cv2.imdecode

    def record(data, flag):
        image = imdecode(data, flag)
        widths.append(image.shape[1])
        return image

    monkeypatch.setattr(cv2, "imdecode", record)
    whole = cv2.imread(str(photo)).shape
    np.random.seed(0)
    transform, reductions = SSDRandomCrop((80, 40)), set()
    for _ in range(200):
        results = transform(sample(photo, [], height=whole[0], width=whole[1]))
        reduction = round(whole[1] / widths[-1])
        # pixels of the decoded image per pixel of the output
        ratios = [1 / (factor * reduction) for factor in results["scale_factor"]]
        assert reduction == 1 or min(ratios) >= 1
        assert reduction == 8 or min(ratios) < 2.1  # above 2, since a crop grows to whole pixels
        reductions.add(reduction)
    assert reductions == {1, 2, 4, 8}


WHOLE = dict(expand_ratio=None, min_ious=(), min_crop_size=1.0, flip_prob=0.0)


def write(path, kind: str) -> None:
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8), (60, 80))
    image = Image.fromarray(smooth)
    exif = Image.Exif()
    if kind == "turned":
        exif[0x0112] = 6
    converted = {"gray": "L", "palette": "P", "transparent": "RGBA"}.get(kind, "RGB")
    image.convert(converted).save(path, **({"exif": exif} if kind == "turned" else {}))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jpg", "color"),
        ("a.jpg", "gray"),
        ("a.jpg", "turned"),
        ("a.png", "palette"),
        ("a.png", "transparent"),
    ],
)
@pytest.mark.parametrize("annotated", [True, False])
def test_files_are_read_as_cv2_reads_them(tmp_path, name, kind, annotated):
    """The annotations give the image's size before EXIF turns the image, or give no size."""
    path = tmp_path / name
    write(path, kind)
    expected = cv2.imread(str(path))
    height, width = expected.shape[:2]
    assert (height, width) == ((60, 80) if kind == "turned" else (80, 60))
    size = dict(height=80, width=60) if annotated else {}
    results = SSDRandomCrop((width, height), **WHOLE)(sample(path, [[5, 5, 40, 50]], **size))
    np.testing.assert_array_equal(results["img"], expected)
    assert results["ori_shape"] == (height, width)
    assert results["gt_bboxes"].tensor.tolist() == [[5, 5, 40, 50]]


@pytest.mark.parametrize("prob", [0, 1])
def test_images_are_expanded_with_the_given_probability(tmp_path, prob):
    path = tmp_path / "a.jpg"
    write(path, "color")
    expanded = dict(expand_ratio=(2, 2), expand_prob=prob)
    crop = SSDRandomCrop((SIZE, SIZE), **WHOLE | expanded)
    factors = {crop(sample(path, [[5, 5, 40, 50]]))["scale_factor"] for _ in range(10)}
    assert factors == {(SIZE / 60 / (1 + prob), SIZE / 80 / (1 + prob))}


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_an_image_at_a_quarter_of_its_size_is_averaged(tmp_path, name):
    """A JPEG is decoded at half its size or less, a PNG at its full size."""
    path = tmp_path / name
    write(path, "color")
    results = SSDRandomCrop((20, 20), **WHOLE)(sample(path, [], height=80, width=60))
    mean = cv2.resize(cv2.imread(str(path)), (20, 20), interpolation=cv2.INTER_AREA)
    assert np.abs(results["img"].astype(float) - mean).mean() < 6


def test_a_file_that_is_no_image_is_refused_by_name(tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8 no more")
    with pytest.raises(MixDetError, match=r"broken\.jpg"):
        SSDRandomCrop((20, 20))(sample(path, [], height=80, width=60))


def test_without_boxes_a_crop_may_miss_the_image(tmp_path):
    path = tmp_path / "a.jpg"
    write(path, "color")
    transform = SSDRandomCrop((20, 30), photometric={})
    np.random.seed(0)
    empty = 0
    for _ in range(300):
        results = transform(sample(path, [], height=80, width=60))
        assert results["img"].shape == (30, 20, 3)
        assert results["gt_bboxes"].tensor.shape == (0, 4)
        empty += np.ptp(results["img"], axis=(0, 1)).max() == 0
    assert 0 < empty < 100


@pytest.fixture(scope="module")
def dataset(coco_sample):
    def build(pipeline: list[dict], split: str = "train2017") -> CocoDataset:
        return CocoDataset(
            data_root=str(coco_sample),
            ann_file=f"annotations/instances_{split}.json",
            data_prefix=dict(img=split),
            pipeline=[dict(type="LoadAnnotations", with_bbox=True), *pipeline],
        )

    return build


@pytest.mark.parametrize("side", [SIZE, 50])
def test_boxes_stay_in_the_image_and_never_vanish(dataset, side):
    """With an output side of 50 pixels, nearly every image is decoded at a reduced size."""
    data = dataset([dict(type="SSDRandomCrop", scale=(side, side))])
    np.random.seed(0)
    for index in range(len(data)):
        results = data[index]
        boxes = results["gt_bboxes"].tensor
        assert ((boxes >= 0) & (boxes <= side)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert len(boxes) == len(results["gt_bboxes_labels"]) == len(results["gt_ignore_flags"]) > 0


def test_boxes_are_read_as_mmdet_loads_them(dataset):
    crop = SSDRandomCrop((SIZE, SIZE))
    crowds = 0
    for index in range(len(data := dataset([]))):
        info, load = data.get_data_info(index), data.pipeline.transforms[0]
        info["instances"][0]["ignore_flag"] = index % 2
        np.random.seed(index)
        ours = crop(dict(info))
        np.random.seed(index)
        expected = crop(load(dict(info)))
        assert torch.equal(ours["gt_bboxes"].tensor, expected["gt_bboxes"].tensor)
        for key in ("img", "gt_bboxes_labels", "gt_ignore_flags"):
            np.testing.assert_array_equal(ours[key], expected[key])
            assert ours[key].dtype == expected[key].dtype
        crowds += ours["gt_ignore_flags"].any()
    assert crowds
    none = Annotations.from_results({"instances": []})
    assert [part.shape for part in none] == [(0, 4), (0,), (0,)]


def test_samples_with_masks_are_refused(photo):
    crop = SSDRandomCrop((SIZE, SIZE))
    with pytest.raises(MixDetError, match="gt_masks"):
        crop(sample(photo, [[40, 20, 200, 220]], gt_masks=None))


def test_the_seed_determines_the_sample(dataset):
    pack = dict(type="PackDetInputs")
    data = dataset([dict(type="SSDRandomCrop", scale=(SIZE, SIZE), photometric={}), pack])

    def draw(seed: int) -> dict:
        np.random.seed(seed)
        return data[3]

    first, repeated, other = draw(1), draw(1), draw(2)
    assert torch.equal(first["inputs"], repeated["inputs"])
    boxes = [s["data_samples"].gt_instances.bboxes.tensor for s in (first, repeated)]
    assert torch.equal(*boxes)
    assert not torch.equal(first["inputs"], other["inputs"])
    wanted = {"ori_shape", "img_shape", "scale_factor", "flip", "flip_direction", "img_id"}
    assert wanted <= set(first["data_samples"].metainfo_keys())


MMDET = [
    dict(type="LoadImageFromFile"),
    dict(type="Expand", mean=MEAN, to_rgb=True, ratio_range=(1, 4)),
    dict(type="MinIoURandomCrop"),
    dict(type="Resize", scale=(SIZE, SIZE), keep_ratio=False),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
]


def statistics(data: CocoDataset, rounds: int) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {"mean": [], "deviation": [], "detail": [], "blue": []}
    np.random.seed(rounds)
    for index in list(range(len(data))) * rounds:
        pixels = data[index]["img"]
        values["mean"].append(pixels.mean())
        values["deviation"].append(pixels.std())
        values["detail"].append(np.abs(np.diff(pixels, axis=1)).mean())
        values["blue"].append(pixels[..., 0].mean() - pixels[..., 2].mean())
    return values


@pytest.mark.heavy
def test_pixels_are_distributed_as_in_mmdet_and_wrong_settings_are_caught(dataset):
    mmdet = statistics(dataset(MMDET), 8)

    def p(**options) -> float:
        step = dict(type="SSDRandomCrop", scale=(SIZE, SIZE), photometric={}) | options
        ours = statistics(dataset([step]), 16)
        return min(ks_2samp(ours[name], mmdet[name]).pvalue for name in ours)

    assert p() > 1e-3
    for wrong in (dict(photometric=None), dict(fill=(0, 0, 0)), dict(expand_ratio=(1, 2))):
        assert p(**wrong) < 1e-3, wrong
