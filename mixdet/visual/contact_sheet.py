"""Contact sheets: predicted and true boxes side by side, for a person to judge at a glance.

Boxes are (x1, y1, x2, y2) in pixels of the image, and an image is whatever
`mixdet.images.as_rgb` takes. A prediction is right where an unclaimed true box of its class
overlaps it with an IoU of at least 0.5, claimed in order of the scores as COCO's evaluation does.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from mixdet.errors import MixDetError
from mixdet.images import as_rgb
from mixdet.visual.boxes import draw_box, enlarged, font_of_size, write_plate

RIGHT, WRONG, MISSED, TRUTH = (40, 200, 60), (235, 40, 40), (255, 210, 0), (255, 255, 255)
IOU = 0.5
MARGIN = 8


@dataclass
class SheetImage:
    """An image with its true and its predicted boxes."""

    image: Any
    truth_boxes: Sequence = ()  # (m, 4)
    truth_labels: Sequence = ()  # (m,)
    boxes: Sequence = ()  # (n, 4)
    scores: Sequence = ()  # (n,)
    labels: Sequence = ()  # (n,)
    crowd: Sequence = ()  # (m,) whether a true box is a crowd, which neither counts nor costs
    title: str = ""
    right: np.ndarray = field(init=False, repr=False)  # (n,) 1 right, 0 wrong, -1 on a crowd
    found: np.ndarray = field(init=False, repr=False)  # (m,) bool

    def __post_init__(self) -> None:
        self.truth_boxes = np.asarray(self.truth_boxes, float).reshape(-1, 4)
        self.boxes = np.asarray(self.boxes, float).reshape(-1, 4)
        self.truth_labels, self.labels = (
            np.asarray(labels, int).reshape(-1) for labels in (self.truth_labels, self.labels)
        )
        self.scores = np.asarray(self.scores, float).reshape(-1)
        self.crowd = np.asarray(self.crowd, bool).reshape(-1)
        if not len(self.crowd):
            self.crowd = np.zeros(len(self.truth_boxes), bool)
        self.right, self.found = self._match()

    def above(self, score_thr: float) -> SheetImage:
        """The same image with only the predictions that score at least `score_thr`."""
        kept = self.scores >= score_thr
        predictions = (self.boxes[kept], self.scores[kept], self.labels[kept])
        truth = (self.truth_boxes, self.truth_labels)
        return SheetImage(self.image, *truth, *predictions, self.crowd, self.title)

    def _match(self) -> tuple[np.ndarray, np.ndarray]:
        right = np.zeros(len(self.boxes), int)
        found = self.crowd.copy()
        if not len(self.boxes) or not len(self.truth_boxes):
            return right, found
        iou = coco_mask.iou(_xywh(self.boxes), _xywh(self.truth_boxes), self.crowd.tolist())
        iou = np.where(self.labels[:, None] == self.truth_labels, iou, 0)
        for index in np.argsort(-self.scores, kind="stable"):
            free = np.where(found, 0, iou[index])
            if free.max() >= IOU:
                right[index], found[free.argmax()] = 1, True
            elif (iou[index] * self.crowd).max() >= IOU:
                right[index] = -1
        return right, found


def contact_sheet(
    items: Iterable[SheetImage],
    path: str | os.PathLike,
    *,
    classes: Sequence[str],
    columns: int = 6,
    score_thr: float = 0.3,
    tile: int = 320,
    title: str = "",
) -> Path:
    """Draw images side by side, each with its true and predicted boxes, under a legend.

    Predictions are solid, green where right and red where wrong; true boxes are dashed, white where
    found and yellow where missed. Images are scaled to the tile before boxes are drawn.

    Args:
        items: The images.
        path: Where to write; the suffix says the format.
        classes: Class names, indexed by label.
        columns: Images in a row.
        score_thr: Predictions below it are left out.
        tile: Width and height in pixels that an image is fitted into.
        title: First words of the legend.

    Returns:
        The path.

    Raises:
        MixDetError: An image cannot be read, or there is none.
    """
    images = [item.above(score_thr) for item in items]
    if not images:
        raise MixDetError(f"no image to draw in {path}: the list of images is empty")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    font = font_of_size(15)
    head, cell = 2 * MARGIN + 40, (tile + MARGIN, tile + MARGIN + 22)
    width = max(columns * cell[0] + MARGIN, 760)
    sheet = Image.new("RGB", (width, rows * cell[1] + head), (32, 32, 36))
    _legend(ImageDraw.Draw(sheet), images, title, score_thr)
    for index, image in enumerate(images):
        left = MARGIN + index % columns * cell[0]
        top = head + index // columns * cell[1]
        drawn = draw_judged(image, classes, tile)
        sheet.paste(drawn, (left + (tile - drawn.width) // 2, top + (tile - drawn.height) // 2))
        _caption(ImageDraw.Draw(sheet), image, (left, top + tile + 2), font, tile)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=92)
    return path


def contact_sheet_from_results(
    ann_file: str | os.PathLike,
    image_root: str | os.PathLike,
    results_json: str | os.PathLike,
    path: str | os.PathLike,
    *,
    count: int = 24,
    **kwargs: Any,
) -> Path:
    """A contact sheet of evenly spaced images of a data set, from what its evaluation wrote.

    Args:
        ann_file: As in `images_from_results`, like the next two.
        image_root: See there.
        results_json: See there.
        path: Where to write.
        count: Number of images.
        **kwargs: Of `contact_sheet`: `columns`, `score_thr`, `tile`, `title`.

    Returns:
        The path.

    Raises:
        MixDetError: A file cannot be read, or the results are of other images.
    """
    items, names = images_from_results(ann_file, image_root, results_json, count)
    return contact_sheet(items, path, classes=names, **kwargs)


def images_from_results(
    ann_file: str | os.PathLike,
    image_root: str | os.PathLike,
    results_json: str | os.PathLike,
    count: int,
) -> tuple[list[SheetImage], list[str]]:
    """Evenly spaced images of a data set, and its class names by label.

    Args:
        ann_file: COCO annotation file.
        image_root: Folder that its `file_name` entries start from.
        results_json: COCO results: a list of `image_id`, `category_id`, `bbox` (x, y, w, h) and
            `score`, such as `CocoDetectionMetric` writes, or mmdet's with `outfile_prefix`.
        count: Number of images.

    Raises:
        MixDetError: A file cannot be read, or the results are of other images.
    """
    dataset, results = _read_json(ann_file), _read_json(results_json)
    images = dataset["images"]
    label = {category["id"]: i for i, category in enumerate(dataset["categories"])}
    for key, known, what in (
        ("image_id", {image["id"] for image in images}, "image"),
        ("category_id", label.keys(), "category"),
    ):
        strangers = {result[key] for result in results} - known
        if strangers:
            raise MixDetError(
                f"{results_json} has results of {what} {min(strangers)}, which {ann_file} does "
                "not know: use the annotation file that was evaluated on"
            )
    truths, predictions = defaultdict(list), defaultdict(list)
    for annotation in dataset["annotations"]:
        truths[annotation["image_id"]].append(annotation)
    for result in results:
        predictions[result["image_id"]].append(result)
    chosen = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int))
    items = []
    for image in (images[index] for index in chosen):
        truth, predicted = truths[image["id"]], predictions[image["id"]]
        items.append(
            SheetImage(
                Path(image_root) / image["file_name"],
                [_xyxy(annotation["bbox"]) for annotation in truth],
                [label[annotation["category_id"]] for annotation in truth],
                [_xyxy(result["bbox"]) for result in predicted],
                [result["score"] for result in predicted],
                [label[result["category_id"]] for result in predicted],
                [annotation.get("iscrowd", 0) for annotation in truth],
                title=image["file_name"],
            )
        )
    return items, [category["name"] for category in dataset["categories"]]


def draw_judged(image: SheetImage, classes: Sequence[str], tile: int) -> Image.Image:
    """An image, `tile` pixels on its longer side, with its boxes as in `contact_sheet`."""
    canvas, scale = enlarged(as_rgb(image.image), tile)
    draw, font = ImageDraw.Draw(canvas), font_of_size(14)
    truth, boxes = image.truth_boxes * scale, image.boxes * scale
    plates: list[tuple] = []
    colors = [RIGHT if right else WRONG for right in image.right]
    for box, color in zip(boxes, colors, strict=True):
        draw_box(draw, box, color, 2)
    for box, found in zip(truth, image.found, strict=True):
        draw_box(draw, box, TRUTH if found else MISSED, 1 if found else 2, dashed=True)
    for box, score, label, color in zip(boxes, image.scores, image.labels, colors, strict=True):
        write_plate(draw, plates, box, f"{classes[label]} {score:.2f}", color, font)
    for box, label, found in zip(truth, image.truth_labels, image.found, strict=True):
        if not found:
            write_plate(draw, plates, box, classes[label], MISSED, font, below=True)
    return canvas


def _legend(draw: ImageDraw.ImageDraw, images: list, title: str, score_thr: float) -> None:
    right = sum(int((image.right == 1).sum()) for image in images)
    wrong = sum(int((image.right == 0).sum()) for image in images)
    truths = sum(int((~image.crowd).sum()) for image in images)
    font, x, y = font_of_size(17), MARGIN, MARGIN
    words = f"{title}: " if title else ""
    words += f"{len(images)} images, predictions with a score of at least {score_thr:g}"
    draw.text((x, y), words, fill=TRUTH, font=font)
    y += 26
    for words, color, width, dashed in (
        (f"right ({right})", RIGHT, 3, False),
        (f"wrong ({wrong})", WRONG, 3, False),
        (f"missed ({truths - right})", MISSED, 2, True),
        (f"true box that was found ({right})", TRUTH, 1, True),
    ):
        draw_box(draw, (x, y, x + 30, y + 17), color, width, dashed)
        draw.text((x + 38, y - 1), words, fill=TRUTH, font=font)
        x += int(38 + font.getlength(words) + 28)


def _caption(
    draw: ImageDraw.ImageDraw, image: SheetImage, corner: tuple, font: Any, room: int
) -> None:
    truths, right = int((~image.crowd).sum()), int((image.right == 1).sum())
    words = f"{right} of {truths} found" if truths else "nothing to find"
    wrong = int((image.right == 0).sum())
    words += f", {wrong} wrong" if wrong else ""
    title = f"{image.title}  " if image.title else ""
    while title and font.getlength(title + words) > room:
        title = title[1:]
    flawed = wrong or right < truths
    draw.text(corner, title + words, fill=MISSED if flawed else (190, 190, 195), font=font)


def _xyxy(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height


def _xywh(boxes: np.ndarray) -> np.ndarray:
    return np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


def _read_json(path: str | os.PathLike) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise MixDetError(f"cannot read {path}: {error}") from error
