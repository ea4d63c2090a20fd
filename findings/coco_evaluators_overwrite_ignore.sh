#!/usr/bin/env bash
# COCO evaluators overwrite an annotation's `ignore` with its `iscrowd`.
#
# Tools that convert PASCAL VOC write "ignore": 1 for `difficult` objects. pycocotools reads
# gt['ignore'], but overwrites the value with that of `iscrowd`. In this script, an image has two
# objects. One object is marked by `ignore` or by `iscrowd`. The detector finds only the other
# object. If the evaluator respects the mark, the AP is 1.
#
# Seen with pycocotools 2.0.11 and faster-coco-eval 1.8.0: an object marked "ignore" counts as
# missed, and one marked "iscrowd" does not.
#   pycocotools       ignore AP=0.5050 iscrowd AP=1.0000
#   faster_coco_eval  ignore AP=0.5050 iscrowd AP=1.0000
# So copy `ignore` to `iscrowd` before the evaluation. The script exits with 0 if the behavior is as
# stated, and with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "numpy==2.4.*" "pycocotools==2.0.11" "faster-coco-eval==1.8.0"
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import copy
import io

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval

box = {"image_id": 1, "category_id": 1, "area": 1600.0, "iscrowd": 0}
content = {
    "info": {},
    "images": [{"id": 1, "file_name": "1.png", "width": 100, "height": 100}],
    "categories": [{"id": 1, "name": "car"}],
    "annotations": [
        {**box, "id": 1, "bbox": [0.0, 0.0, 40.0, 40.0]},
        {**box, "id": 2, "bbox": [50.0, 50.0, 40.0, 40.0]},
    ],
}
found = [{"image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 40.0, 40.0], "score": 0.9}]


def average_precision(coco_class, evaluator, mark):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_class()
        truth.dataset = copy.deepcopy(content)
        truth.dataset["annotations"][1][mark] = 1
        truth.createIndex()
        evaluation = evaluator(truth, truth.loadRes(copy.deepcopy(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


seen = {}
for name, coco_class, evaluator in (
    ("pycocotools", pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    ("faster_coco_eval", faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
):
    seen[name] = [average_precision(coco_class, evaluator, m) for m in ("ignore", "iscrowd")]
    print(f"{name:<17} ignore AP={seen[name][0]:.4f} iscrowd AP={seen[name][1]:.4f}")
as_stated = all(abs(a - 51 / 101) < 1e-9 and abs(b - 1) < 1e-9 for a, b in seen.values())
raise SystemExit(0 if as_stated else 1)
PYTHON
