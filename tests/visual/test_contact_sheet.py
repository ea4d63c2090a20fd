"""Boxes are matched as in pycocotools, and drawn correctly on contact sheets and images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mixdet.digit_scenes import make_digit_scenes
from mixdet.errors import MixDetError
from mixdet.evaluation import ScoredData
from mixdet.visual import (
    SheetImage,
    draw_detections,
    write_contact_sheet,
    write_contact_sheet_from_results,
)
from mixdet.visual.contact_sheet import (
    CORRECT_COLOR,
    MISSED_COLOR,
    TRUTH_COLOR,
    WRONG_COLOR,
    read_sheet_images,
)

CLASSES = ("cat", "dog")
BOX = (10, 10, 50, 50)


def image(**kwargs) -> SheetImage:
    return SheetImage(np.zeros((100, 100, 3), np.uint8), **kwargs)


def pixels(path, color) -> int:
    sheet = np.asarray(Image.open(path))
    return int((sheet == color).all(-1).sum())


class TestMatching:
    def test_boxes_are_correct_wrong_or_missed(self):
        item = image(
            truth_boxes=[BOX, (60, 60, 90, 90)],
            truth_labels=[0, 1],
            boxes=[BOX, BOX, (12, 10, 50, 50), (0, 60, 20, 80)],
            labels=[0, 1, 0, 1],
            scores=[0.8, 0.9, 0.95, 0.4],
        )
        # The first true box has class 0. Of the two boxes of this class, the one with score 0.95
        # matches, although the one with score 0.8 overlaps more.
        assert item.outcomes.tolist() == [0, 0, 1, 0]
        assert item.detected.tolist() == [True, False]

    @pytest.mark.parametrize(("shift", "correct"), [(13, 1), (14, 0)])
    def test_a_correct_box_has_an_iou_of_at_least_one_half(self, shift, correct):
        moved = (10 + shift, 10, 50 + shift, 50)  # the IoU is 27 / 53 or 26 / 54
        item = image(truth_boxes=[BOX], truth_labels=[0], boxes=[moved], labels=[0], scores=[0.5])
        assert item.outcomes.tolist() == [correct]

    def test_a_box_in_a_crowd_is_neither_correct_nor_wrong(self):
        item = image(
            truth_boxes=[(0, 0, 100, 100)],
            truth_labels=[0],
            crowd=[1],
            boxes=[BOX, BOX],
            labels=[0, 1],
            scores=[0.5, 0.5],
        )
        assert item.outcomes.tolist() == [-1, 0]

    def test_a_box_below_the_threshold_is_not_matched(self):
        item = image(truth_boxes=[BOX], truth_labels=[0], boxes=[BOX], labels=[0], scores=[0.2])
        assert item.detected.tolist() == [True]
        assert item.above(0.3).detected.tolist() == [False]

    def test_random_boxes_are_matched_as_in_pycocotools(self):
        """The number of correct boxes equals the number of COCO's matches at IoU 0.5."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        rng = np.random.default_rng(0)
        for _ in range(20):
            truth, boxes = (
                np.sort(rng.integers(0, 40, (n, 2, 2)), axis=1).reshape(n, 4)
                + np.array([0, 0, 3, 3])
                for n in (6, 12)
            )
            truth_labels, labels, scores = (
                rng.integers(0, 2, 6),
                rng.integers(0, 2, 12),
                rng.random(12),
            )
            item = image(
                truth_boxes=truth,
                truth_labels=truth_labels,
                boxes=boxes,
                labels=labels,
                scores=scores,
            )
            coco = COCO()
            coco.dataset = {
                "info": {},
                "images": [{"id": 1}],
                "categories": [{"id": 0}, {"id": 1}],
                "annotations": [
                    {
                        "id": i + 1,
                        "image_id": 1,
                        "category_id": int(label),
                        "bbox": [*map(int, box[:2]), *map(int, box[2:] - box[:2])],
                        "area": 1000,
                        "iscrowd": 0,
                    }
                    for i, (box, label) in enumerate(zip(truth, truth_labels, strict=True))
                ],
            }
            coco.createIndex()
            results = coco.loadRes(
                [
                    {
                        "image_id": 1,
                        "category_id": int(label),
                        "bbox": [*map(int, box[:2]), *map(int, box[2:] - box[:2])],
                        "score": float(score),
                    }
                    for box, label, score in zip(boxes, labels, scores, strict=True)
                ]
            )
            evaluation = COCOeval(coco, results, "bbox")
            evaluation.params.iouThrs = np.array([0.5])
            evaluation.evaluate()
            matched = sum(
                int((entry["dtMatches"][0] > 0).sum())
                for entry in evaluation.evalImgs[:: len(evaluation.params.areaRng)]
                if entry
            )
            assert item.correct == matched


class TestContactSheet:
    def sheet(self, path, **kwargs):
        return write_contact_sheet([image(**kwargs)], path, classes=CLASSES)

    def test_correct_wrong_and_missed_boxes_have_their_colors(self, tmp_path):
        truth = {"truth_boxes": [BOX], "truth_labels": [0]}
        wrong = {"boxes": [BOX], "labels": [1], "scores": [0.9]}
        right = {"boxes": [BOX], "labels": [0], "scores": [0.9]}
        empty = self.sheet(tmp_path / "empty.png")
        hit = self.sheet(tmp_path / "hit.png", **truth, **right)
        miss = self.sheet(tmp_path / "miss.png", **truth)
        both = self.sheet(tmp_path / "both.png", **truth, **wrong)
        count = {
            name: [pixels(path, color) for color in (CORRECT_COLOR, WRONG_COLOR, MISSED_COLOR)]
            for name, path in {"empty": empty, "hit": hit, "miss": miss, "both": both}.items()
        }
        more = {name: np.array(n) - count["empty"] > 50 for name, n in count.items()}
        assert more["hit"].tolist() == [True, False, False]
        assert more["miss"].tolist() == [False, False, True]
        assert more["both"].tolist() == [False, True, True]
        assert pixels(hit, TRUTH_COLOR) > pixels(empty, TRUTH_COLOR)  # the dashed true box

    def test_every_image_is_drawn_and_enlarged(self, tmp_path):
        items = [SheetImage(np.full((40, 80, 3), (40, 50, 200), np.uint8)) for _ in range(5)]
        path = tmp_path / "new" / "sheet.png"
        write_contact_sheet(items, path, classes=CLASSES, columns=3)
        assert pixels(path, (40, 50, 200)) == 5 * 320 * 160

    def test_images_of_extreme_shapes_are_drawn(self, tmp_path):
        items = [SheetImage(np.zeros(shape, np.uint8)) for shape in ((1, 1), (1, 900), (900, 1))]
        items.append(image(truth_boxes=[(-5, -5, 200, 200)], truth_labels=[1]))
        assert write_contact_sheet(items, tmp_path / "sheet.png", classes=CLASSES).is_file()

    def test_captions_keep_every_letter_of_long_names(self, tmp_path):
        name = "folder/BloodImage_00082_of_a_long_name_that_needs_more_than_one_line.jpg"
        sheets = [self.sheet(tmp_path / "sheet.png", title=name).read_bytes()]
        for position in (0, len(name) // 2, len(name) - 1):
            other = name[:position] + "_" + name[position + 1 :]
            sheets.append(self.sheet(tmp_path / "sheet.png", title=other).read_bytes())
        assert len(set(sheets)) == 4

    def test_the_heading_keeps_a_long_title(self, tmp_path):
        sheets = [
            write_contact_sheet(
                [image()], tmp_path / "sheet.png", classes=CLASSES, title="long " * 40 + end
            ).read_bytes()
            for end in "ab"
        ]
        assert sheets[0] != sheets[1]

    def test_a_sheet_without_images_is_refused(self, tmp_path):
        with pytest.raises(MixDetError, match="empty"):
            write_contact_sheet([], tmp_path / "sheet.png", classes=CLASSES)

    def test_a_sheet_is_drawn_from_results_and_wrong_results_are_refused(self, tmp_path):
        root = make_digit_scenes(tmp_path / "scenes", train=1, val=8, progress=False)
        ann_file = root / "annotations" / "instances_val.json"
        truth = json.loads(ann_file.read_text())["annotations"]
        results = [
            {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
            for a in truth
        ]
        (tmp_path / "perfect.json").write_text(json.dumps(results))
        (tmp_path / "nothing.json").write_text("[]")
        sheets = {
            name: write_contact_sheet_from_results(
                ann_file, root / "val", tmp_path / f"{name}.json", tmp_path / f"{name}.png"
            )
            for name in ("perfect", "nothing")
        }
        perfect, nothing = sheets["perfect"], sheets["nothing"]
        # Only the legend shows the color of wrong boxes.
        assert pixels(perfect, WRONG_COLOR) == pixels(nothing, WRONG_COLOR)
        assert pixels(perfect, CORRECT_COLOR) > pixels(nothing, CORRECT_COLOR) + 500
        assert pixels(perfect, MISSED_COLOR) + 500 < pixels(nothing, MISSED_COLOR)

        results[0]["image_id"] = 77
        (tmp_path / "other.json").write_text(json.dumps(results))
        with pytest.raises(MixDetError, match="image 77"):
            write_contact_sheet_from_results(
                ann_file, root / "val", tmp_path / "other.json", tmp_path / "x.png"
            )
        results[0] |= {"image_id": 1, "category_id": 55}
        (tmp_path / "other.json").write_text(json.dumps(results))
        with pytest.raises(MixDetError, match="category 55"):
            write_contact_sheet_from_results(
                ann_file, root / "val", tmp_path / "other.json", tmp_path / "x.png"
            )
        (root / "val" / "000001.jpg").unlink()
        with pytest.raises(MixDetError, match=r"000001\.jpg"):
            write_contact_sheet_from_results(
                ann_file, root / "val", tmp_path / "perfect.json", tmp_path / "x.png"
            )
        with pytest.raises(MixDetError, match=r"gone\.json"):
            write_contact_sheet_from_results(
                ann_file, root / "val", tmp_path / "gone.json", tmp_path / "x.png"
            )


class TestDrawDetections:
    def test_a_box_is_drawn_at_its_coordinates(self):
        image = np.full((600, 800, 3), 90, np.uint8)
        drawn = draw_detections(image, [(200, 300, 500, 450)], [0.5], [3], ["cat"])
        assert drawn.shape == image.shape
        assert (image == 90).all()  # the caller's image is not changed
        changed = (drawn != image).any(-1)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert (columns[0], columns[-1]) == (200, 499)
        assert rows[-1] == 449
        assert changed[300, 200:500].all()
        assert not changed[310:440, 210:490].any()

    def test_a_small_image_is_enlarged(self):
        drawn = draw_detections(np.zeros((80, 160, 3), np.uint8), [(20, 20, 40, 60)], [1], [0], "a")
        assert drawn.shape == (240, 480, 3)
        assert drawn[60:180, 60:64].any(axis=(1, 2)).all()
        same = draw_detections(np.zeros((80, 160, 3), np.uint8), [], [], [], [], min_size=0)
        assert same.shape == (80, 160, 3)
        assert not same.any()

    def test_classes_differ_in_color(self):
        image = np.zeros((500, 500, 3), np.uint8)
        colors = {
            tuple(draw_detections(image, [(0, 0, 500, 500)], [1], [label], ["x"])[499, 250])
            for label in range(20)
        }
        assert len(colors) == 20

    def test_a_sheet_shows_the_classes_images_and_boxes_that_are_scored(self, tmp_path):
        boxes = [(1, 1, {}), (1, 2, {}), (2, 2, {"ignore": 1}), (2, 2, {}), (3, 2, {})]
        annotations = [
            {"id": n, "image_id": i, "category_id": c, "bbox": [9 * n, 5, 8, 8], "area": 64, **more}
            for n, (i, c, more) in enumerate(boxes)
        ]
        content = {
            "images": [{"id": i, "file_name": f"{i}.png"} for i in (1, 2, 3)],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": annotations,
        }
        results = [
            {
                "image_id": a["image_id"],
                "category_id": a["category_id"],
                "bbox": a["bbox"],
                "score": 1,
            }
            for a in annotations
        ]
        ann_file, results_file = tmp_path / "a.json", tmp_path / "results.json"
        ann_file.write_text(json.dumps(content))
        results_file.write_text(json.dumps(results))
        scored = ScoredData.read(ann_file, ["dog"], [1, 2])
        items, names = read_sheet_images(scored, tmp_path, results_file, 9)
        assert names == ["dog"]
        assert [item.title for item in items] == ["1.png", "2.png"]
        assert [(item.objects, item.correct, item.wrong) for item in items] == [(1, 1, 0)] * 2
        items, names = read_sheet_images(ann_file, tmp_path, results_file, 9)
        assert names == ["cat", "dog"]
        assert [item.objects for item in items] == [2, 1, 1]
