"""Run an exported folder of kind `raw` on ONNX Runtime, without MixDet.

python detect_onnx.py exported/raw image.jpg
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


def decode(boxes, scores, manifest, width, height):
    """Select the detections among the outputs of a `raw` network.

    Args:
        boxes: (A, 4), (x1, y1, x2, y2) in pixels of the network's input, one box for each anchor.
        scores: (A, classes), in 0..1.
        manifest: The content of `mixdet.json`.
        width, height: Size of the image in pixels.

    Returns:
        (n, 6): x1, y1, x2, y2 in pixels of the image, score, label; best first.
    """
    postprocess, size = manifest["postprocess"], manifest["input"]
    levels, start = [], 0
    for level in manifest["levels"]:
        end = start + level["anchors"]
        anchors, labels = np.nonzero(scores[start:end] > postprocess["score_thr"])
        candidates = np.column_stack(
            [boxes[start:end][anchors], scores[start:end][anchors, labels], labels]
        )
        limit = postprocess["nms_pre"] if postprocess["nms_pre"] > 0 else None
        levels.append(candidates[np.argsort(-candidates[:, 4])][:limit])
        start = end
    rows = np.concatenate(levels)
    rows = rows[np.argsort(-rows[:, 4])]
    rows[:, :4] *= [width / size["width"], height / size["height"]] * 2
    rows = rows[(rows[:, 2:4] - rows[:, :2] > postprocess["min_bbox_size"]).all(1)]
    detections = []
    while len(rows) and len(detections) < postprocess["max_per_img"]:
        best, rows = rows[0], rows[1:]
        detections.append(best)
        sides = np.minimum(rows[:, 2:4], best[2:4]) - np.maximum(rows[:, :2], best[:2])
        intersection = sides.clip(0).prod(1)
        areas = (rows[:, 2:4] - rows[:, :2]).prod(1) + (best[2:4] - best[:2]).prod()
        overlaps = intersection > postprocess["iou_thr"] * (areas - intersection)
        rows = rows[(rows[:, 5] != best[5]) | ~overlaps]
    return np.array(detections).reshape(-1, 6)


def main():
    folder, file = map(Path, sys.argv[1:])
    manifest = json.loads((folder / "mixdet.json").read_text())
    size = manifest["input"]
    image = cv2.imread(str(file))  # BGR
    inputs = image[..., ::-1] if size["channels"] == "RGB" else image
    inputs = cv2.resize(inputs, (size["width"], size["height"]))
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    boxes, scores = (output[0] for output in session.run(None, {"image": inputs[None]}))
    height, width = image.shape[:2]
    for *box, score, label in decode(boxes, scores, manifest, width, height).tolist():
        print(manifest["classes"][int(label)], score, *box)


if __name__ == "__main__":
    main()
