"""Write an error analysis as one HTML page, which contains its images and loads no other file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from mixdet.error_analysis.detector_errors import DetectorErrors
from mixdet.error_analysis.error_figures import (
    draw_f1_by_class,
    draw_kinds,
    draw_precision_over_recall,
    draw_rates,
)
from mixdet.error_analysis.error_kinds import MISSED_KINDS, UNMATCHED_ROWS, WRONG_KINDS
from mixdet.error_analysis.error_numbers import errors_as_dict
from mixdet.error_analysis.error_text import (
    ADVICE,
    CLASS_COLUMNS,
    KIND_COLUMNS,
    SIZE_COLUMNS,
    class_rows,
    kind_rows,
    percent,
    size_rows,
    threshold_text,
)
from mixdet.error_analysis.matching import MATCH_IOU
from mixdet.outputs import write_atomically
from mixdet.visual.boxes import data_url
from mixdet.visual.contact_sheet import SheetImage, draw_sheet_image
from mixdet.visual.html_page import fill_template, html_figures, html_table

IMAGES = 12
IMAGE_SIDE = 480


def write_error_files(
    errors: DetectorErrors,
    page: str | os.PathLike,
    title: str,
    image_files: Mapping[Any, str | os.PathLike],
    images: int = IMAGES,
) -> Path:
    """Write an error analysis as an HTML page, and its numbers as JSON beside it.

    Args:
        errors: The analysis.
        page: The HTML file. The JSON file has the same name with the suffix `.json`.
        title: Title and heading of the page.
        image_files: File of each image by its id.
        images: Number of images on the page, those with most errors first. 0 needs no image files.

    Returns:
        The path of the page.

    Raises:
        MixDetError: An image cannot be read, or a file cannot be written.
    """
    page = Path(page)
    text = error_page_html(errors, title, image_files, images)
    write_atomically(page.with_suffix(".json"), f"{json.dumps(errors_as_dict(errors))}\n".encode())
    write_atomically(page, text.encode())
    return page


def error_page_html(
    errors: DetectorErrors,
    title: str,
    image_files: Mapping[Any, str | os.PathLike],
    images: int = IMAGES,
) -> str:
    """Return the HTML of the page; see `write_error_files`."""
    return fill_template(
        Path(__file__).with_name("error_page.html"),
        title,
        summary=escape(threshold_text(errors)),
        iou=f"{MATCH_IOU:g}",
        advice=escape(ADVICE),
        images_scored=f"{len(errors.matches.image_ids):,}",
        classes=html_table(CLASS_COLUMNS, class_rows(errors), kind="classes"),
        confusion=_confusion_table(errors),
        confusions=_confusion_list(errors),
        sizes=html_table(SIZE_COLUMNS, size_rows(errors), kind="classes"),
        wrong=_kind_table("wrong detections", WRONG_KINDS, errors.wrong_kinds()),
        missed=_kind_table("missed objects", MISSED_KINDS, errors.missed_kinds()),
        figures=html_figures(
            (
                ("All classes together", draw_rates(errors)),
                ("F1 of each class", draw_f1_by_class(errors)),
                (f"Precision over recall at IoU {MATCH_IOU:g}", draw_precision_over_recall(errors)),
                ("Errors by kind and object size", draw_kinds(errors)),
            )
        ),
        images=_images(errors, image_files, images),
    )


def _kind_table(name: str, kinds: Mapping[str, str], table: np.ndarray) -> str:
    rows = kind_rows(kinds, table)
    with_meaning = [[*row, meaning] for row, meaning in zip(rows, kinds.values(), strict=True)]
    return html_table((name, *KIND_COLUMNS, "meaning"), with_meaning, kind="kinds")


def _confusion_table(errors: DetectorErrors) -> str:
    """Return the matrix as a table whose cells have the number and its share of the row."""
    matrix = errors.confusion_shares()
    head = "".join(f"<th><span>{escape(name)}</span></th>" for name in [*errors.classes, "missed"])
    body = ""
    rows = zip([*errors.classes, *UNMATCHED_ROWS], errors.errors.confusion, matrix, strict=True)
    for index, (name, counts, shares) in enumerate(rows):
        cells = ""
        for column, (count, part) in enumerate(zip(counts, shares, strict=True)):
            if not count:
                cells += "<td></td>"
                continue
            hue = "0, 114, 178" if index == column else "213, 94, 0"  # blue: correct, orange: wrong
            color = f"background:rgba({hue}, {0.08 + 0.6 * part:.2f})"
            cells += (
                f'<td style="{color}" data-share="{percent(part)}" data-count="{count:,}"></td>'
            )
        body += f"<tr><th>{escape(name)}</th>{cells}<td>{counts.sum():,}</td></tr>"
    return (
        f'<table class="matrix"><thead><tr><th>true \\ predicted</th>{head}<th><span>all</span>'
        f"</th></tr></thead><tbody>{body}</tbody></table>"
    )


def _confusion_list(errors: DetectorErrors) -> str:
    items = "".join(
        f"<li>{escape(true)} taken for {escape(predicted)}: {count:,}</li>"
        for true, predicted, count in errors.confusions()
    )
    return f"<p>Most frequent confusions:</p><ul>{items}</ul>" if items else ""


def _images(
    errors: DetectorErrors, image_files: Mapping[Any, str | os.PathLike], count: int
) -> str:
    """Return the section with the images, or an empty string if there are none."""
    worst = errors.image_errors()[:count]
    if not worst:
        return ""
    figures = ""
    for image in worst:
        sheet = _sheet_image(errors, image["id"], image_files[image["id"]])
        url = data_url(draw_sheet_image(sheet, errors.classes, IMAGE_SIDE))
        caption = (
            f"{image['file_name']}: {image['missed']} of {image['objects']} objects missed, "
            f"{image['wrong']} wrong"
        )
        figures += (
            f'<figure><img src="{url}" alt=""><figcaption>{escape(caption)}</figcaption></figure>'
        )
    return (
        "<h2>Images with most errors</h2>\n<p>Ordered by missed objects plus wrong detections at "
        "the threshold above. Detections are solid: green if correct, red if wrong. True boxes are "
        f'dashed: white if detected, yellow if missed.</p>\n<div class="grid images">{figures}'
        "</div>"
    )


def _sheet_image(
    errors: DetectorErrors, image_id: int | str, file: str | os.PathLike
) -> SheetImage:
    """Return an image with its true boxes and the detections above the threshold."""
    matches = errors.matches
    index = matches.image_ids.index(image_id)
    truth = matches.truth.image == index
    shown = (matches.detections.image == index) & (matches.score >= errors.score_thr)
    return SheetImage(
        file,
        _corners(matches.truth.box[truth]),
        matches.truth.label[truth],
        _corners(matches.detections.box[shown]),
        matches.score[shown],
        matches.detections.label[shown],
        matches.crowd[truth],
    )


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
