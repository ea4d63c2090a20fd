"""Draw docs/figures/detections.jpg, the README's first image, with a trained detector.

    python docs/draw_readme.py work_dirs/ssdlite_mixnet_s_digits/epoch_6.pth

The image shows five validation scenes. Each scene has at least three digits. The backgrounds are
five different photographs in the public domain (CC0).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from mixdet.errors import run_tool
from mixdet.inference import Detector
from mixdet.visual.boxes import draw_detections

ROOT = Path(__file__).resolve().parent.parent
FIGURE = ROOT / "docs" / "figures" / "detections.jpg"
CC0 = 1  # the id of this license in the annotation file
SCENES = 5
SIDE, GAP = 240, 8  # pixels
SCORE_THR = 0.5


def choose_scenes(annotations: dict, count: int = SCENES) -> list[str]:
    """Return the files of the first scenes with at least three digits, one per CC0 photograph."""
    digits = Counter(annotation["image_id"] for annotation in annotations["annotations"])
    scenes: dict[str, str] = {}
    for image in annotations["images"]:
        if image["license"] == CC0 and digits[image["id"]] >= 3:
            scenes.setdefault(image["photograph"], image["file_name"])
    return list(scenes.values())[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", help="a checkpoint of configs/ssdlite_mixnet_s_digits.py")
    parser.add_argument("--data", type=Path, default=ROOT / "data/digit_scenes")
    parser.add_argument("--out", type=Path, default=FIGURE)
    args = parser.parse_args()
    annotations = json.loads((args.data / "annotations/instances_val.json").read_text())
    files = [args.data / "val" / name for name in choose_scenes(annotations)]
    results = Detector(args.checkpoint)(files, score_thr=SCORE_THR)
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    row = []
    for file, result in zip(files, results, strict=True):
        detections = (result.boxes, result.scores, result.labels, result.names)
        row += [draw_detections(file, *detections, min_size=SIDE), gap]
    Image.fromarray(np.hstack(row[:-1])).save(args.out, quality=85)
    print(f"{args.out}: {', '.join(file.name for file in files)}")


if __name__ == "__main__":
    run_tool(main)
