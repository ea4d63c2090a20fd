"""From a checkpoint to a folder that runs without torch: `tools/export.py` calls this."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors.torch import save

from mixdet import __version__
from mixdet.deploy.labeled_images import LabeledImages, labeled_images
from mixdet.deploy.network import CandidateNetwork, RawNetwork, post_processing
from mixdet.deploy.readme import write_readme
from mixdet.deploy.targets import require, write
from mixdet.deploy.verify import reference, verify
from mixdet.errors import MixDetError
from mixdet.inference.manifest import FORMAT, MANIFEST, UNVERIFIED, sha256
from mixdet.inference.runtimes import FILES
from mixdet.inference.trained import TrainedNetwork
from mixdet.outputs import writable_folder

KINDS = {"raw": RawNetwork, "end2end": CandidateNetwork}
# Of whose versions the manifest tells
PACKAGES = (
    *("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"),
    *("ncnn", "pnnx", "litert-torch", "ai-edge-litert", "executorch"),
)


def export(
    config: str | os.PathLike | None,
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    *,
    targets: Sequence[str] = ("onnx",),
    kinds: Sequence[str] = ("raw",),
    precision: str = "fp32",
    calibration_images: int = 300,
    max_drop: float = 0.01,
    data_root: str | None = None,
    check: bool = True,
    trust_checkpoint: bool = False,
) -> list[Path]:
    """Export a trained detector, and compare each exported file with it on the test images.

    Args:
        config: Path of the config; None for the one in the checkpoint.
        checkpoint: The checkpoint.
        out: The folder to write; with several kinds, each has a folder in it, named after it.
        targets: Names in `mixdet.deploy.targets.TARGETS`.
        kinds: 'raw' (boxes and scores before NMS, one image) and 'end2end' (after NMS, batches).
        precision: 'fp32', 'fp16', 'bf16' or 'int8'; see `TARGETS` for which targets take which.
        calibration_images: How many of the training split INT8 is calibrated on.
        max_drop: How much mAP a file of less than float32 may lose.
        data_root: Another folder for the config's data.
        check: False compares nothing, and leaves the mAP unknown.
        trust_checkpoint: As for `Detector`.

    Returns:
        The folders.

    Raises:
        MixDetError: A target lacks its package, the detector cannot be exported, or an exported
            file differs from it by more than the tolerance, or loses more than `max_drop`. It is
            then in `unverified_...` in the folder of its kind, which is otherwise as it was.
    """
    require(targets, kinds, precision)
    if calibration_images < 1:
        raise MixDetError(f"--calibration-images {calibration_images}: at least 1 is needed")
    out = Path(out)
    trained = TrainedNetwork(checkpoint, config, "cpu", trust_checkpoint)
    post = post_processing(trained)
    if "end2end" in kinds and post["min_bbox_size"] > 0:
        raise MixDetError("model.test_cfg.min_bbox_size above 0: export --kind raw alone")
    wanted = reference(trained, data_root) if check else None
    less: dict[str, Any] = {} if precision == "fp32" else {"max_drop": max_drop}
    training = None
    if precision == "int8":
        training = labeled_images(trained.cfg, "train_dataloader", data_root)
        less["calibration_images"] = calibration_images
    folders = []
    for kind in kinds:
        folder = writable_folder("--out", out / kind if len(kinds) > 1 else out)
        network = cache(partial(KINDS[kind], trained, int8=precision == "int8"))
        described = _manifest(trained, network(*targets[:1]), kind, post)
        manifest = {**described, "precision": precision, **less}
        unverified = Path(tempfile.mkdtemp(prefix=UNVERIFIED, dir=folder))
        _write_files(unverified, trained, network, manifest, targets, training)
        _write_manifest(unverified, folder, manifest)
        for target in targets if wanted else ():
            try:
                report = verify(unverified, wanted, target)
                manifest["measured"][target] = report.as_dict()
                print(f"{folder}, {target}: {report}")
                report.require()
            except MixDetError as error:
                manifest["refused"] = f"{target}: {error}"
                raise MixDetError(f"{target}: {error}; refused, and left in {unverified}") from None
            finally:
                _write_manifest(unverified, folder, manifest)
        others = {name for names in FILES.values() for name in names} - manifest["files"].keys()
        others |= {f"{each}/{MANIFEST}" for each in KINDS}
        if left := sorted(name for name in others if (folder / name).exists()):
            print(f"{folder}: left of an earlier export, and not of this one: {', '.join(left)}")
        for file in sorted(unverified.iterdir(), key=lambda file: file.name == MANIFEST):
            file.replace(folder / file.name)
        unverified.rmdir()
        folders.append(folder)
    return folders


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
    for name in ("torch", "mmdet", *PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _write_files(
    folder: Path,
    trained: TrainedNetwork,
    network: Callable[[str], RawNetwork],
    manifest: dict[str, Any],
    targets: Sequence[str],
    training: LabeledImages | None,
) -> None:
    made = ["model.safetensors"]
    weights = trained.model.state_dict().items()
    # in bytes: its own files are for no other user
    (folder / made[0]).write_bytes(save({name: value.contiguous() for name, value in weights}))
    stated = {key: json.dumps(manifest[key]) for key in ("kind", "input", "classes", "postprocess")}
    write(targets, folder, network, manifest, stated, training)
    made += [name for target in targets for name in FILES[target]]
    manifest["files"] = {name: sha256(folder / name) for name in made}


def _write_manifest(unverified: Path, folder: Path, manifest: dict[str, Any]) -> None:
    (unverified / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    write_readme(unverified, folder, manifest)
