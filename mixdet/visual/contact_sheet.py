"""Contact sheets: grids of images with predicted and true boxes.

Boxes are (x1, y1, x2, y2) in pixels of the image. An image is anything that
`mixdet.images.as_rgb` accepts.

Predictions are matched with true boxes as in COCO's evaluation. The predictions of an image are
visited from the highest score to the lowest. A prediction is correct if an unmatched true box of
its class overlaps it with an IoU of at least 0.5. Among several such true boxes, the one with the
highest IoU is matched.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from mixdet.errors import MixDetError
from mixdet.images import as_rgb
from mixdet.visual.boxes import draw_box, draw_label, resize_longer_side
from mixdet.visual.text import FittedText

if TYPE_CHECKING:
    from mixdet.evaluation import ScoredData

CORRECT_COLOR, WRONG_COLOR = (40, 200, 60), (235, 40, 40)
MISSED_COLOR, TRUTH_COLOR = (255, 210, 0), (255, 255, 255)
BACKGROUND_COLOR, CAPTION_COLOR = (32, 32, 36), (190, 190, 195)
CORRECT, WRONG, ON_CROWD = 1, 0, -1
MATCH_IOU = 0.5
MARGIN = 8
HEADING_SIZE, LABEL_SIZE = 17, 14  # font sizes in pixels
MIN_WIDTH, LEGEND_HEIGHT = 800, 26  # pixels that the legend needs


@dataclass
class SheetImage:
    """An image with its true and its predicted boxes, matched with each other.

    Attributes:
        image: The image.
        truth_boxes: (m, 4) true boxes.
        truth_labels: (m,) class indices of the true boxes.
        boxes: (n, 4) predicted boxes.
        scores: (n,) scores of the predicted boxes.
        labels: (n,) class indices of the predicted boxes.
        crowd: (m,) whether a true box is a crowd (COCO's `iscrowd`). May be empty if there is no
            crowd. A crowd is never missed, and a prediction on a crowd is neither correct nor
            wrong.
        title: Caption.
        outcomes: (n,) `CORRECT`, `WRONG` or `ON_CROWD` for each prediction.
        detected: (m,) whether a true box is matched with a prediction. True for crowds.
    """

    image: Any
    truth_boxes: Sequence = ()
    truth_labels: Sequence = ()
    boxes: Sequence = ()
    scores: Sequence = ()
    labels: Sequence = ()
    crowd: Sequence = ()
    title: str = ""
    outcomes: np.ndarray = field(init=False, repr=False)
    detected: np.ndarray = field(init=False, repr=False)

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
        self.outcomes, self.detected = self._match()

    @property
    def correct(self) -> int:
        """Number of correct predictions."""
        return int((self.outcomes == CORRECT).sum())

    @property
    def wrong(self) -> int:
        """Number of wrong predictions."""
        return int((self.outcomes == WRONG).sum())

    @property
    def objects(self) -> int:
        """Number of true boxes that are not crowds."""
        return int((~self.crowd).sum())

    def above(self, score_thr: float) -> SheetImage:
        """Return the same image with only the predictions that score at least `score_thr`."""
        above = self.scores >= score_thr
        predictions = (self.boxes[above], self.scores[above], self.labels[above])
        truth = (self.truth_boxes, self.truth_labels)
        return SheetImage(self.image, *truth, *predictions, self.crowd, self.title)

    def _match(self) -> tuple[np.ndarray, np.ndarray]:
        outcomes = np.full(len(self.boxes), WRONG)
        detected = self.crowd.copy()
        if not len(self.boxes) or not len(self.truth_boxes):
            return outcomes, detected
        iou = coco_mask.iou(_xywh(self.boxes), _xywh(self.truth_boxes), self.crowd.tolist())
        iou = np.where(self.labels[:, None] == self.truth_labels, iou, 0)
        for index in np.argsort(-self.scores, kind="stable"):
            unmatched = np.where(detected, 0, iou[index])
            if unmatched.max() >= MATCH_IOU:
                outcomes[index], detected[unmatched.argmax()] = CORRECT, True
            elif (iou[index] * self.crowd).max() >= MATCH_IOU:
                outcomes[index] = ON_CROWD
        return outcomes, detected


def write_contact_sheet(
    items: Iterable[SheetImage],
    path: str | os.PathLike,
    *,
    classes: Sequence[str],
    columns: int = 6,
    score_thr: float = 0.3,
    tile: int = 320,
    title: str = "",
) -> Path:
    """Draw a legend and, below it, a grid of images with their true and predicted boxes.

    Predicted boxes are solid: red if wrong, otherwise green. True boxes are dashed: white if
    detected, yellow if missed.

    Args:
        items: The images.
        path: File to write. Its suffix selects the format.
        classes: Class names, indexed by label.
        columns: Images in a row.
        score_thr: Predictions with a lower score are left out.
        tile: Width and height in pixels that each image is fitted into.
        title: First words of the legend.

    Returns:
        The path of the file.

    Raises:
        MixDetError: An image cannot be read, or `items` is empty.
    """
    images = [item.above(score_thr) for item in items]
    if not images:
        raise MixDetError(f"no image to draw in {path}: the list of images is empty")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    width = max(columns * (tile + MARGIN) + MARGIN, MIN_WIDTH)
    heading = f"{title}: " if title else ""
    heading += f"{len(images)} images, predictions with a score of at least {score_thr:g}"
    fitted_heading = FittedText(heading, HEADING_SIZE, width - 2 * MARGIN)
    captions = [_caption(image, tile) for image in images]
    cell_height = tile + MARGIN + max(caption.height for caption, _ in captions) + 4
    legend_height = 2 * MARGIN + fitted_heading.height + LEGEND_HEIGHT
    sheet = Image.new("RGB", (width, rows * cell_height + legend_height), BACKGROUND_COLOR)
    draw = ImageDraw.Draw(sheet)
    fitted_heading.draw(draw, (MARGIN, MARGIN), TRUTH_COLOR)
    _draw_legend(draw, images, (MARGIN, MARGIN + fitted_heading.height + 4))
    for index, (image, (caption, color)) in enumerate(zip(images, captions, strict=True)):
        left = MARGIN + index % columns * (tile + MARGIN)
        top = legend_height + index // columns * cell_height
        drawn = draw_sheet_image(image, classes, tile)
        sheet.paste(drawn, (left + (tile - drawn.width) // 2, top + (tile - drawn.height) // 2))
        caption.draw(draw, (left, top + tile + 2), color)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=92)
    return path


def write_contact_sheet_from_results(
    truth: ScoredData | str | os.PathLike,
    image_root: str | os.PathLike,
    results_json: str | os.PathLike,
    path: str | os.PathLike,
    *,
    count: int = 24,
    **kwargs: Any,
) -> Path:
    """Draw a contact sheet from the files of an evaluation.

    The images are evenly spaced in the annotation file.

    Args:
        truth: See `read_sheet_images`.
        image_root: See `read_sheet_images`.
        results_json: See `read_sheet_images`.
        path: File to write.
        count: Number of images.
        **kwargs: `columns`, `score_thr`, `tile` and `title` of `write_contact_sheet`.

    Returns:
        The path of the file.

    Raises:
        MixDetError: A file cannot be read, or the results do not belong to the annotations.
    """
    items, names = read_sheet_images(truth, image_root, results_json, count)
    return write_contact_sheet(items, path, classes=names, **kwargs)


def read_sheet_images(
    truth: ScoredData | str | os.PathLike,
    image_root: str | os.PathLike,
    results_json: str | os.PathLike,
    count: int,
) -> tuple[list[SheetImage], list[str]]:
    """Read evenly spaced images of an annotation file, with their true and predicted boxes.

    Args:
        truth: The boxes, the classes and the images that the evaluation scored. If this is the path
            of an annotation file, everything in the file counts.
        image_root: Folder that the `file_name` entries are relative to.
        results_json: COCO results: a list of `image_id`, `category_id`, `bbox` (x, y, w, h) and
            `score`. `CocoDetectionMetric` writes this file if `results_file` is set, and mmdet's
            `CocoMetric` if `outfile_prefix` is set. Results of classes or images that the
            evaluation did not score are left out.
        count: Number of images.

    Returns:
        The images, and the class names indexed by label.

    Raises:
        MixDetError: A file cannot be read, or the results do not belong to the annotations.
    """
    scored = truth
    if isinstance(truth, (str, os.PathLike)):
        from mixdet.evaluation import ScoredData  # imported here, since it imports mmdet

        scored = ScoredData.read(truth)
    predictions = _read_results(results_json, scored)
    labels = {number: label for label, number in enumerate(scored.category_ids)}
    images = scored.images
    chosen = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int))
    items = []
    for index in chosen:
        image = images[index]
        true = scored.boxes(image["id"])
        results = predictions[image["id"]]
        predicted = [result for result in results if result["category_id"] in labels]
        items.append(
            SheetImage(
                Path(image_root) / image["file_name"],
                [_xyxy(annotation["bbox"]) for annotation in true],
                [labels[annotation["category_id"]] for annotation in true],
                [_xyxy(result["bbox"]) for result in predicted],
                [result["score"] for result in predicted],
                [labels[result["category_id"]] for result in predicted],
                [annotation["iscrowd"] for annotation in true],
                title=image["file_name"],
            )
        )
    return items, scored.classes


def draw_sheet_image(image: SheetImage, classes: Sequence[str], tile: int) -> Image.Image:
    """Draw one image with its boxes, in the colors of `write_contact_sheet`.

    Args:
        image: The image.
        classes: Class names, indexed by label.
        tile: Pixels of the longer side of the drawn image.
    """
    canvas, scale = resize_longer_side(as_rgb(image.image), tile)
    draw = ImageDraw.Draw(canvas)
    truth, boxes = image.truth_boxes * scale, image.boxes * scale
    placed: list[tuple] = []
    colors = [WRONG_COLOR if outcome == WRONG else CORRECT_COLOR for outcome in image.outcomes]
    for box, color in zip(boxes, colors, strict=True):
        draw_box(draw, box, color, 2)
    for box, detected in zip(truth, image.detected, strict=True):
        color, width = (TRUTH_COLOR, 1) if detected else (MISSED_COLOR, 2)
        draw_box(draw, box, color, width, dashed=True)
    for box, score, label, color in zip(boxes, image.scores, image.labels, colors, strict=True):
        draw_label(draw, placed, box, f"{classes[label]} {score:.2f}", color, LABEL_SIZE)
    for box, label, detected in zip(truth, image.truth_labels, image.detected, strict=True):
        if not detected:
            draw_label(draw, placed, box, classes[label], MISSED_COLOR, LABEL_SIZE, below=True)
    return canvas


def _draw_legend(
    draw: ImageDraw.ImageDraw, images: Sequence[SheetImage], corner: tuple[int, int]
) -> None:
    """Draw one row that explains the colors and states the number of boxes in each color."""
    correct = sum(image.correct for image in images)
    wrong = sum(image.wrong for image in images)
    objects = sum(image.objects for image in images)
    x, y = corner
    for text, color, width, dashed in (
        (f"correct ({correct})", CORRECT_COLOR, 3, False),
        (f"wrong ({wrong})", WRONG_COLOR, 3, False),
        (f"missed ({objects - correct})", MISSED_COLOR, 2, True),
        (f"true box, detected ({correct})", TRUTH_COLOR, 1, True),
    ):
        draw_box(draw, (x, y, x + 30, y + 17), color, width, dashed)
        fitted = FittedText(text, HEADING_SIZE)
        fitted.draw(draw, (x + 38, y - 1), TRUTH_COLOR)
        x += 38 + fitted.width + 28


def _caption(image: SheetImage, width: int) -> tuple[FittedText, tuple[int, int, int]]:
    """Return the caption of an image, broken at the given width, and the color of its text."""
    counts = f"{image.correct} of {image.objects} detected" if image.objects else "no objects"
    counts += f", {image.wrong} wrong" if image.wrong else ""
    flawless = not image.wrong and image.correct == image.objects
    text = f"{image.title}  {counts}" if image.title else counts
    return FittedText(text, LABEL_SIZE, width), CAPTION_COLOR if flawless else MISSED_COLOR


def _xyxy(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height


def _xywh(boxes: np.ndarray) -> np.ndarray:
    return np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


def _read_results(path: str | os.PathLike, scored: ScoredData) -> dict[Any, list[dict]]:
    """Read COCO results. Return them by image id.

    Raises:
        MixDetError: The file cannot be read, or has results of an unknown image or category.
    """
    try:
        results = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise MixDetError(f"cannot read {path}: {error}") from error
    for key, known, kind in (
        ("image_id", scored.annotations.imgs, "image"),
        ("category_id", scored.annotations.cats, "category"),
    ):
        unknown = {result[key] for result in results} - known.keys()
        if unknown:
            raise MixDetError(
                f"{path} has results of {kind} {min(unknown, key=str)}, which is not in the "
                "annotation file: give the annotation file that was used for the evaluation"
            )
    by_image = defaultdict(list)
    for result in results:
        by_image[result["image_id"]].append(result)
    return by_image
