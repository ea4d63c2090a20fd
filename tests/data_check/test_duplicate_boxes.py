"""Boxes that annotate an object a second time are reported."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from mixdet.annotations.reading import read_table
from mixdet.data_check.data_splits import Split
from mixdet.data_check.duplicate_boxes import find_duplicate_boxes
from mixdet.images import ImageLimits


def add(changes: dict, first=(10, 10, 20, 20)):
    """Return a function that adds an annotation with the box `first`, and a changed copy of it."""

    def change(content):
        base = dict(content["annotations"][0], image_id=3, bbox=list(first))
        content["annotations"] += [dict(base, id=900), dict(base, id=901, **changes)]

    return change


@pytest.mark.parametrize("bbox", [[10, 10, 20, 20], [10, 10, 20, 19], [10.5, 10, 20, 20]])
def test_a_box_that_nearly_equals_another_is_reported(problems_of, bbox):
    (problem,) = problems_of(train=add({"bbox": bbox})).values()
    assert (problem.code, problem.level, problem.count) == ("duplicate_boxes", "warning", 1)
    assert problem.data == "training"
    assert problem.examples[0].text.startswith("annotation 901 in 3.png")
    assert problem.examples[0].text.endswith("like annotation 900")


@pytest.mark.parametrize(
    "changes",
    [
        {"bbox": [10, 10, 20, 18]},  # an IoU of exactly 0.9
        {"category_id": 2},
        {"image_id": 5},
        {"iscrowd": 1},
    ],
    ids=str,
)
def test_boxes_that_overlap_less_or_differ_in_another_field_are_not_reported(problems_of, changes):
    def change(content):
        content["annotations"][0]["category_id"] = 1
        add(changes)(content)

    assert "duplicate_boxes" not in problems_of(train=change)


def test_of_three_equal_boxes_two_are_reported(problems_of):
    def change(content):
        content["annotations"] += [
            dict(content["annotations"][0], id=900 + number) for number in range(2)
        ]

    problems = problems_of(val=change)
    assert problems["duplicate_boxes"].count == 2
    assert "validation" in problems["duplicate_boxes"].data


def test_the_search_finds_the_boxes_that_a_comparison_of_all_pairs_finds(tmp_path):
    rng = np.random.default_rng(0)
    boxes = np.repeat(
        np.concatenate([rng.uniform(0, 90, (60, 2)), rng.uniform(1, 60, (60, 2))], 1), 3, 0
    )
    boxes *= rng.uniform(0.96, 1.04, boxes.shape)
    rng.shuffle(boxes)
    owners = rng.integers(1, 3, (len(boxes), 2))
    content = {
        "images": [{"id": number} for number in (1, 2)],
        "categories": [{"id": number, "name": str(number)} for number in (1, 2)],
        "annotations": [
            {
                "id": index,
                "image_id": int(image),
                "category_id": int(category),
                "bbox": box.tolist(),
            }
            for index, (box, (image, category)) in enumerate(zip(boxes, owners, strict=True))
        ],
    }
    (tmp_path / "file.json").write_text(json.dumps(content))
    table = read_table(tmp_path / "file.json")
    split = Split("training", "file", None, ("1", "2"), ImageLimits(), table)
    corners = torch.tensor(np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]))
    same = box_iou(corners, corners).numpy() > 0.9
    same &= (owners[:, None] == owners[None]).all(2)
    expected = {later for earlier, later in np.argwhere(same) if earlier < later}
    assert len(expected) > 10
    assert find_duplicate_boxes(split).keys() == expected
