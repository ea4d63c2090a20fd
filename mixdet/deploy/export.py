"""From a checkpoint to a folder that runs without torch: `tools/export.py` calls this."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from mixdet import __version__
from mixdet.deploy.exported import FILES, FORMAT, MANIFEST, sha256
from mixdet.deploy.network import CandidateNetwork, RawNetwork, post_processing
from mixdet.deploy.to_onnx import save_onnx
from mixdet.deploy.verify import reference, verify
from mixdet.engine.trained import TrainedNetwork
from mixdet.errors import MixDetError
from mixdet.outputs import writable_folder

KINDS = {"raw": RawNetwork, "end2end": CandidateNetwork}
PACKAGES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
# Made by a converter of their own from what this writes; see docs/deploy.md
OTHERS = {
    "ncnn": "convert model.onnx of kind raw with pnnx",
    "litert": "convert mixdet.deploy.network.RawNetwork with litert-torch",
    "executorch": "convert mixdet.deploy.network.RawNetwork with executorch",
    "coreml": "convert mixdet.deploy.network.RawNetwork with coremltools, on a Mac to run it",
}
README = """# {name}

{kind_says}

| file | for |
|---|---|
{files}

    from mixdet.inference import Detector

    detector = Detector("{folder}")  # needs NumPy, OpenCV and {runtimes}, not torch
    found = detector("picture.jpg")  # found.boxes, found.scores, found.labels, found.names

In another language: read the picture as {channels}, resize it to {width} x {height} bilinearly,
whatever its proportions, and give it as uint8 in the shape {shape}.
Normalisation is in the file.

{outputs}

`{manifest}` has the classes, the thresholds, the anchors and the SHA-256 of every file.
{measured}
"""
KIND_SAYS = {
    "raw": "Boxes and class scores before NMS, one picture at a time: what NPUs and phones take.",
    "end2end": "Boxes, scores and labels after NMS, for any number of pictures at a time.",
}
OUTPUTS = {
    "raw": """Outputs: `boxes` (1, {anchors}, 4), (x1, y1, x2, y2) in pixels of the input, and
`scores` (1, {anchors}, {classes}). Still to do: drop scores up to {score_thr}, NMS within each
class at IoU {iou_thr}, and scale the boxes to the picture.""",
    "end2end": """Outputs: `boxes` (N, {places}, 4), (x1, y1, x2, y2) in pixels of the input,
`scores` and `labels` (N, {places}), best first; labels are -1 after the last box. Still to do:
scale the boxes to the picture.""",
}


def export(
    config: str | os.PathLike | None,
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    *,
    targets: Sequence[str] = ("onnx",),
    kinds: Sequence[str] = ("raw",),
    data_root: str | None = None,
    check: bool = True,
    trust_checkpoint: bool = False,
) -> list[Path]:
    """Export a trained detector, and compare each exported file with it on the test pictures.

    Args:
        config: Path of the config; None for the one in the checkpoint.
        checkpoint: The checkpoint.
        out: The folder to write; with several kinds, each has a folder in it, named after it.
        targets: 'onnx' and 'openvino'.
        kinds: 'raw' (boxes and scores before NMS, one picture) and 'end2end' (after NMS, batches).
        data_root: Another folder for the config's test data.
        check: False compares nothing, and leaves the mAP unknown.
        trust_checkpoint: As for `Detector`.

    Returns:
        The folders.

    Raises:
        MixDetError: A target lacks its package, the detector cannot be exported, or an exported
            file differs from it by more than the tolerance.
    """
    for target in targets:
        _require(target)
    out = Path(out)
    trained = TrainedNetwork(checkpoint, config, "cpu", trust_checkpoint)
    post = post_processing(trained)
    if "end2end" in kinds and post["min_bbox_size"] > 0:
        raise MixDetError("model.test_cfg.min_bbox_size above 0: export --kind raw alone")
    wanted = reference(trained, data_root) if check else None
    folders = []
    for kind in kinds:
        folder = writable_folder("--out", out / kind if len(kinds) > 1 else out)
        network = KINDS[kind](trained)
        manifest = _manifest(trained, network, kind, post)
        _write_files(folder, trained, network, manifest, targets)
        _write_manifest(folder, manifest)
        folders.append(folder)
        for target in targets if wanted else ():
            report = verify(folder, wanted, target)
            manifest["measured"][target] = report.as_dict()
            _write_manifest(folder, manifest)
            print(f"{folder}, {target}: {report}")
            report.require()
    return folders


def _require(target: str) -> None:
    if target in OTHERS:
        raise MixDetError(f"--to {target}: not written by this version: {OTHERS[target]}")
    if target not in PACKAGES:
        raise MixDetError(f"--to {target}: unknown; there are: {', '.join(PACKAGES)}")
    missing = [name for name in PACKAGES[target] if importlib.util.find_spec(name) is None]
    if missing:
        raise MixDetError(
            f'--to {target}: {", ".join(missing)} not installed: pip install "mixdet[{target}]"'
        )


def _manifest(
    trained: TrainedNetwork, network: RawNetwork, kind: str, post: dict[str, Any]
) -> dict[str, Any]:
    width, height = network.size
    return {
        "format": FORMAT,
        "kind": kind,
        "input": {
            "width": width,
            "height": height,
            "channels": network.channels,
            "dtype": "uint8",
            "layout": "NHWC",
            "resize": "bilinear, proportions not kept (cv2.INTER_LINEAR)",
        },
        "classes": list(trained.classes),
        "levels": network.levels,
        "postprocess": post,
        "files": {},
        "measured": {},
        "versions": _versions(),
        "config": trained.cfg.pretty_text,
    }


def _versions() -> dict[str, str]:
    found = {"mixdet": __version__}
    for name in ("torch", "mmdet", "onnx", "onnxscript", "onnxruntime", "openvino"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _write_files(
    folder: Path,
    trained: TrainedNetwork,
    network: RawNetwork,
    manifest: dict[str, Any],
    targets: Sequence[str],
) -> None:
    made = ["model.safetensors"]
    weights = trained.model.state_dict().items()
    save_file({name: value.contiguous() for name, value in weights}, folder / made[0])
    onnx_file = folder / FILES["onnx"][0]
    stated = {key: json.dumps(manifest[key]) for key in ("kind", "input", "classes", "postprocess")}
    save_onnx(network, onnx_file, manifest["postprocess"], stated)
    if "openvino" in targets:
        import openvino

        model = openvino.convert_model(onnx_file)
        openvino.save_model(model, folder / FILES["openvino"][0], compress_to_fp16=False)
        made += FILES["openvino"]
    if "onnx" in targets:
        made.append(onnx_file.name)
    else:
        onnx_file.unlink()
    manifest["files"] = {name: sha256(folder / name) for name in made}


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    purposes = {
        "model.onnx": "ONNX Runtime",
        "model.xml": "OpenVINO",
        "model.bin": "OpenVINO, the weights",
        "model.safetensors": "torch: the checkpoint's weights",
        MANIFEST: "everything needed to use them",
    }
    measured = [
        f"Measured, {target}: mAP {report['mAP']:.3f} on {report['pictures']} pictures "
        f"({report['mAP_torch']:.3f} in PyTorch)."
        for target, report in manifest["measured"].items()
    ]
    files = [*manifest["files"], MANIFEST]
    kind, size = manifest["kind"], manifest["input"]
    anchors = sum(level["anchors"] for level in manifest["levels"])
    classes = len(manifest["classes"])
    post = manifest["postprocess"]
    (folder / "README.md").write_text(
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
            measured="\n".join(measured),
            **size,
        ),
        encoding="utf-8",
    )
