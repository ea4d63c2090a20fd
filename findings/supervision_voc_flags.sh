#!/usr/bin/env bash
# supervision 0.31.2: its reader of PASCAL VOC files loses or changes the following.
#
# - An object marked <difficult>1</difficult> becomes an object like any other. VOC's evaluation
#   neither counts nor punishes detections of it.
# - A box without an area (xmin = xmax, ymin = ymax) becomes a box of 1 x 1 pixel, so a check for
#   empty boxes does not find it afterwards.
# - Class ids depend on the names of the image files: new classes are appended image by image.
#
# For this reason, `mixdet init` has its own reader.
#
# Seen:
#   classes: ['zebra', 'ape']
#   boxes of 1.jpg: [[8.0, 8.0, 30.0, 40.0], [19.0, 19.0, 20.0, 20.0]]
#   COCO annotations with `ignore` or `iscrowd`: 0 of 3
#
# Exit code 0: the behavior is as stated. Exit code 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet supervision==0.31.2 opencv-python-headless==5.0.0.93
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
from pathlib import Path

import cv2
import numpy as np
from supervision import DetectionDataset


def annotation(name, objects):
    entries = "".join(
        f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>"
        f"<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for kind, difficult, box in objects
    )
    size = "<size><width>64</width><height>64</height><depth>3</depth></size>"
    Path("xml", f"{name}.xml").write_text(
        f"<annotation><filename>{name}.jpg</filename>{size}{entries}</annotation>"
    )


for folder in ("images", "xml"):
    Path(folder).mkdir()
for name in ("1", "2"):
    cv2.imwrite(f"images/{name}.jpg", np.zeros((64, 64, 3), np.uint8))
annotation("1", [("zebra", 1, (9, 9, 30, 40)), ("zebra", 0, (20, 20, 20, 20))])
annotation("2", [("ape", 0, (5, 5, 20, 20))])
data = DetectionDataset.from_pascal_voc("images", "xml")
boxes = {Path(path).name: detections.xyxy.tolist() for path, _, detections in data}
data.as_coco(annotations_path="coco.json")
entries = json.loads(Path("coco.json").read_text())["annotations"]
ignored = sum(bool(entry.get("ignore") or entry.get("iscrowd")) for entry in entries)
print("classes:", list(data.classes))
print("boxes of 1.jpg:", boxes["1.jpg"])
print(f"COCO annotations with `ignore` or `iscrowd`: {ignored} of {len(entries)}")
assert list(data.classes) == ["zebra", "ape"]
assert boxes["1.jpg"] == [[8, 8, 30, 40], [19, 19, 20, 20]]
assert (ignored, len(entries)) == (0, 3)
PYTHON
