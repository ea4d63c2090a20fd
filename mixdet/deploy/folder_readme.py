"""Write the `README.md` of an exported folder. It tells how to run the files in the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixdet.inference.manifest import MANIFEST
from mixdet.inference.runtimes import RUNTIME_FILES

README = """# {name}

{kind}

| file | for |
|---|---|
{files}

In Python:

    from mixdet.inference import Detector

    # Give the path of this folder. MixDet then needs NumPy, OpenCV and {runtimes}, but not torch.
    detector = Detector("{name}")
    detections = detector("image.jpg")  # .boxes, .scores, .labels and .names

In another language:

1. Read the image with its channels in the order {channels}.
2. Resize it to a width of {width} and a height of {height} pixels, with bilinear interpolation and
   without keeping its proportions.
3. Pass it as uint8 in the shape {shape}. The network normalizes it.

{outputs}

{notes}
"""
KINDS = {
    "raw": "The network takes one image and returns boxes and class scores before NMS. NPUs and "
    "phones can run it.",
    "end2end": "The network takes any number of images and returns boxes, scores and labels after "
    "NMS.",
}
PRECISIONS = {
    "fp16": "The weights are float16.",
    "bf16": "The weights are bfloat16, and CPUs that support bfloat16 also compute in it.",
    "int8": "Convolutions are computed in 8 bits. Squeeze-excite and the decoding of boxes stay in "
    "float32. For OpenVINO, some grouped convolutions stay in float32 too.",
}
NCNN = """For ncnn, the input is `in0`. It has three planes of floats from 0 to 255, as
`ncnn::Mat::from_pixels_resize` makes them. The outputs are `out0` (boxes) and `out1` (scores)."""
OUTPUTS = {
    "raw": """Outputs:

- `boxes` (1, {anchors}, 4), as (x1, y1, x2, y2) in pixels of the input
- `scores` (1, {anchors}, {classes})

Then do the following in your own code:

1. Drop the boxes whose score is {score_thr} or less.
2. Do NMS within each class, with an IoU threshold of {iou_thr}.
3. Scale the boxes to the size of the image.""",
    "end2end": """Outputs:

- `boxes` (N, {places}, 4), as (x1, y1, x2, y2) in pixels of the input
- `scores` (N, {places}), best first
- `labels` (N, {places}), padded with -1 after the last box

Then scale the boxes to the size of the image in your own code.""",
}
PURPOSES = {
    "model.onnx": "ONNX Runtime",
    "model.xml": "OpenVINO",
    "model.bin": "OpenVINO, the weights",
    "model.ncnn.param": "ncnn",
    "model.ncnn.bin": "ncnn, the weights",
    "model.tflite": "LiteRT",
    "model.pte": "ExecuTorch",
    "model.safetensors": "torch: the checkpoint's weights",
    MANIFEST: "class names, input format, thresholds and anchors",
}


def write_folder_readme(directory: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """Write the `README.md` of an exported folder.

    Args:
        directory: The folder to write the `README.md` to.
        folder: Final path of the exported folder, whose name the `README.md` shows. The files are
            moved from `directory` to this path later.
        manifest: The contents of `mixdet.json`.
    """
    files = [*manifest["files"], MANIFEST]
    kind, input_format = manifest["kind"], manifest["input"]
    height, width = input_format["height"], input_format["width"]
    anchors = sum(level["anchors"] for level in manifest["levels"])
    classes = len(manifest["classes"])
    postprocess = manifest["postprocess"]
    text = README.format(
        name=folder.resolve().name,
        kind=KINDS[kind],
        files="\n".join(f"| `{name}` | {PURPOSES[name]} |" for name in files),
        runtimes=" or ".join(
            PURPOSES[name] for name, *_ in RUNTIME_FILES.values() if name in files
        ),
        channels=input_format["channels"],
        width=width,
        height=height,
        shape=f"({'N' if kind == 'end2end' else 1}, {height}, {width}, 3)",
        outputs=OUTPUTS[kind].format(
            anchors=anchors,
            classes=classes,
            places=min(postprocess["max_per_img"], anchors * classes),
            **postprocess,
        ),
        notes="\n\n".join(_notes(manifest)),
    )
    (directory / "README.md").write_text(text, encoding="utf-8")


def _notes(manifest: dict[str, Any]) -> list[str]:
    notes = [
        f"`{MANIFEST}` has the classes, the thresholds, the anchors and the SHA-256 of every file."
    ]
    if manifest["precision"] != "fp32":
        notes.append(PRECISIONS[manifest["precision"]])
    if "model.ncnn.param" in manifest["files"]:
        notes.append(NCNN)
    notes += [
        f"Measured with {target}: mAP {report['mAP']:.3f} on {report['images']} images "
        f"({report['mAP_torch']:.3f} in PyTorch)."
        for target, report in manifest["measured"].items()
    ]
    if "refused" in manifest:
        notes.append(f"**Do not use these files.** {manifest['refused']}.")
    # Blocks that would lose too much mAP in INT8 stay in float.
    notes += [
        f"Blocks (groups of layers) in float for {target}: {', '.join(blocks) or 'none'}."
        for target, blocks in manifest.get("float_layers", {}).items()
    ]
    return notes
