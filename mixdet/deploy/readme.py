"""`README.md` of an exported folder: how to run what lies in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixdet.inference.manifest import MANIFEST
from mixdet.inference.runtimes import FILES

README = """# {name}

{kind_says}

| file | for |
|---|---|
{files}

    from mixdet.inference import Detector

    detector = Detector("{folder}")  # needs NumPy, OpenCV and {runtimes}, not torch
    found = detector("image.jpg")  # found.boxes, found.scores, found.labels, found.names

In another language: read the image as {channels}, resize it to {width} x {height} bilinearly,
whatever its proportions, and give it as uint8 in the shape {shape}.
Normalization is in the file.

{outputs}

`{manifest}` has the classes, the thresholds, the anchors and the SHA-256 of every file.
{notes}
"""
KIND_SAYS = {
    "raw": "Boxes and class scores before NMS, one image at a time: what NPUs and phones take.",
    "end2end": "Boxes, scores and labels after NMS, for any number of images at a time.",
}
PRECISION_SAYS = {
    "fp16": "Weights are float16.",
    "bf16": "Weights are bfloat16, and so is the arithmetic on CPUs that have it.",
    "int8": "Convolutions are of 8 bits, but for squeeze-excite and, for OpenVINO, some grouped "
    "ones; decoding is float32.",
}
NCNN = """For ncnn the image is `in0`, three float planes of 0..255 as
`ncnn::Mat::from_pixels_resize` makes them; `out0` are the boxes and `out1` the scores."""
OUTPUTS = {
    "raw": """Outputs: `boxes` (1, {anchors}, 4), (x1, y1, x2, y2) in pixels of the input, and
`scores` (1, {anchors}, {classes}). Still to do: drop scores up to {score_thr}, NMS within each
class at IoU {iou_thr}, and scale the boxes to the image.""",
    "end2end": """Outputs: `boxes` (N, {places}, 4), (x1, y1, x2, y2) in pixels of the input,
`scores` and `labels` (N, {places}), best first; labels are -1 after the last box. Still to do:
scale the boxes to the image.""",
}


def write_readme(into: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """Write it.

    Args:
        into: Where.
        folder: What it calls the folder.
        manifest: What `mixdet.json` holds.
    """
    purposes = {
        "model.onnx": "ONNX Runtime",
        "model.xml": "OpenVINO",
        "model.bin": "OpenVINO, the weights",
        "model.ncnn.param": "ncnn",
        "model.ncnn.bin": "ncnn, the weights",
        "model.tflite": "LiteRT",
        "model.pte": "ExecuTorch",
        "model.safetensors": "torch: the checkpoint's weights",
        MANIFEST: "everything needed to use them",
    }
    notes = [NCNN] if "model.ncnn.param" in manifest["files"] else []
    notes += [
        f"Measured, {target}: mAP {report['mAP']:.3f} on {report['images']} images "
        f"({report['mAP_torch']:.3f} in PyTorch)."
        for target, report in manifest["measured"].items()
    ]
    if "refused" in manifest:
        notes.append(f"**Refused, and not to be used**: {manifest['refused']}.")
    if manifest["precision"] != "fp32":
        notes.insert(0, PRECISION_SAYS[manifest["precision"]])
    for target, layers in manifest.get("float_layers", {}).items():
        notes.append(f"Blocks kept in float, {target}: {', '.join(layers) or 'none'}.")
    files = [*manifest["files"], MANIFEST]
    kind, size = manifest["kind"], manifest["input"]
    anchors = sum(level["anchors"] for level in manifest["levels"])
    classes = len(manifest["classes"])
    post = manifest["postprocess"]
    (into / "README.md").write_text(
        README.format(
            name=folder.name,
            folder=folder,
            kind_says=KIND_SAYS[kind],
            files="\n".join(f"| `{name}` | {purposes[name]} |" for name in files),
            runtimes=" or ".join(purposes[name] for name, *_ in FILES.values() if name in files),
            shape=f"({'N' if kind == 'end2end' else 1}, {size['height']}, {size['width']}, 3)",
            outputs=OUTPUTS[kind].format(
                anchors=anchors,
                classes=classes,
                places=min(post["max_per_img"], anchors * classes),
                **post,
            ),
            manifest=MANIFEST,
            notes="\n".join(notes),
            **size,
        ),
        encoding="utf-8",
    )
