"""Export a trained detector to a folder that other runtimes load without torch."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmengine.config import Config
from safetensors.torch import save

from mixdet import __version__
from mixdet.deploy.export_targets import check_export_options, write_targets
from mixdet.deploy.folder_readme import write_folder_readme
from mixdet.deploy.labeled_images import LabeledImages, load_labeled_images
from mixdet.deploy.machine_paths import without_folders
from mixdet.deploy.raw_network import CandidateNetwork, RawNetwork, postprocess_settings
from mixdet.deploy.verification import ReferenceDetections, detect_reference, verify
from mixdet.errors import MixDetError
from mixdet.file_kinds import UNVERIFIED_PREFIX, WEIGHTS_FILE
from mixdet.inference.manifest import MANIFEST, MANIFEST_FORMAT, sha256
from mixdet.inference.runtimes import METADATA_KEYS, RUNTIME_FILES
from mixdet.inference.trained import TrainedNetwork
from mixdet.outputs import writable_folder

KINDS = {"raw": RawNetwork, "end2end": CandidateNetwork}
# The manifest (`mixdet.json`) states the versions of these packages.
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
    size: int | tuple[int, int] | None = None,
) -> list[Path]:
    """Export a trained detector, and compare the detector with each file on the test images.

    The files are written to a subfolder `unverified_...` first. After all of them have passed the
    comparison, they are moved to the folder itself.

    Args:
        config: Path of the config. None takes the config that the checkpoint holds.
        checkpoint: Path of the checkpoint.
        out: The folder to write. If several kinds are exported, each kind has its own subfolder.
        targets: Runtimes to export for, names in `mixdet.deploy.export_targets.EXPORT_TARGETS`.
        kinds: 'raw' (boxes and scores before NMS, one image) or 'end2end' (after NMS, batches).
        precision: 'fp32', 'fp16', 'bf16' or 'int8'. `EXPORT_TARGETS` says which target supports
            which precision.
        calibration_images: Number of training images that INT8 is calibrated on.
        max_drop: The mAP (0 to 1) that a file may lose if its precision is not 'fp32'.
        data_root: Another folder for the config's data.
        check: False skips the comparison. Then `mixdet.json` states no mAP.
        trust_checkpoint: See `mixdet.inference.Detector`.
        size: Size of the network's input in pixels: (width, height), or the side of a square. By
            default it is the size that the checkpoint was trained with.

    Returns:
        The exported folders, one for each kind.

    Raises:
        MixDetError: A package is not installed, the detector cannot be exported, or an exported
            file fails the comparison. After a failed comparison the files stay in `unverified_...`,
            and an earlier export in the same folder is unchanged.
    """
    check_export_options(targets, kinds, precision)
    if calibration_images < 1:
        raise MixDetError(f"--calibration-images {calibration_images}: give at least 1")
    out = Path(out)
    trained = TrainedNetwork(checkpoint, config, "cpu", trust_checkpoint, size=size)
    postprocess = postprocess_settings(trained)
    if "end2end" in kinds and postprocess["min_bbox_size"] > 0:
        raise MixDetError(
            "model.test_cfg.min_bbox_size is above 0: --kind end2end does not support it; use "
            "--kind raw"
        )
    reference = detect_reference(trained, data_root) if check else None
    settings: dict[str, Any] = {"precision": precision}
    if precision != "fp32":
        settings["max_drop"] = max_drop
    training_images = None
    if precision == "int8":
        training_images = load_labeled_images(trained.cfg, "train_dataloader", data_root)
        settings["calibration_images"] = calibration_images
    folders = []
    for kind in kinds:
        folder = writable_folder("--out", out / kind if len(kinds) > 1 else out)
        network_for = cache(partial(KINDS[kind], trained, int8=precision == "int8"))
        manifest = _manifest(trained, network_for(*targets[:1]), kind, postprocess) | settings
        unverified = Path(tempfile.mkdtemp(prefix=UNVERIFIED_PREFIX, dir=folder))
        _write_files(unverified, trained, network_for, manifest, targets, training_images)
        _write_manifest(unverified, folder, manifest)
        if reference is not None:
            _verify_files(unverified, folder, manifest, targets, reference)
        _report_older_files(folder, manifest)
        _move_files(unverified, folder)
        folders.append(folder)
    return folders


def _manifest(
    trained: TrainedNetwork, network: RawNetwork, kind: str, postprocess: dict[str, Any]
) -> dict[str, Any]:
    width, height = network.input_wh
    num_classes = network.detector.bbox_head.num_classes
    if len(trained.classes) != num_classes:
        raise MixDetError(
            f"the checkpoint names {len(trained.classes)} classes, but model.bbox_head.num_classes "
            f"is {num_classes}: name all classes in metainfo.classes of the test data set, or name "
            "the config that the checkpoint was trained with"
        )
    return {
        "format": MANIFEST_FORMAT,
        "kind": kind,
        "input": {
            "width": width,
            "height": height,
            "channels": network.channel_order,
            "dtype": "uint8",
            "layout": "NHWC",
            "resize": "bilinear, proportions not kept (cv2.INTER_LINEAR)",
        },
        "classes": list(trained.classes),
        "levels": network.levels,
        "postprocess": postprocess,
        "files": {},
        "measured": {},
        "versions": _versions(),
        "config": Config(without_folders(trained.cfg.to_dict())).pretty_text,
    }


def _versions() -> dict[str, str]:
    versions = {"mixdet": __version__}
    for package in ("torch", "mmdet", *PACKAGES):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _write_files(
    folder: Path,
    trained: TrainedNetwork,
    network_for: Callable[[str], RawNetwork],
    manifest: dict[str, Any],
    targets: Sequence[str],
    training_images: LabeledImages | None,
) -> None:
    """Write the weights and the files of every target, and put their SHA-256 in the manifest."""
    weights = {name: value.contiguous() for name, value in trained.model.state_dict().items()}
    # safetensors' `save_file` would write a file that other users cannot read.
    (folder / WEIGHTS_FILE).write_bytes(save(weights))
    metadata = {key: json.dumps(manifest[key]) for key in METADATA_KEYS}
    write_targets(targets, folder, network_for, manifest, metadata, training_images)
    names = [WEIGHTS_FILE, *(name for target in targets for name in RUNTIME_FILES[target])]
    manifest["files"] = {name: sha256(folder / name) for name in names}


def _verify_files(
    unverified: Path,
    folder: Path,
    manifest: dict[str, Any],
    targets: Sequence[str],
    reference: ReferenceDetections,
) -> None:
    """Compare each target's file with PyTorch, and state the result in the manifest."""
    for target in targets:
        try:
            report = verify(unverified, reference, target)
            manifest["measured"][target] = report.as_dict()
            print(f"{folder}, {target}: {report}")
            report.require()
        except MixDetError as error:
            manifest["refused"] = without_folders(f"{target}: {error}")
            raise MixDetError(
                f"{target}: {error}; the export is refused, and its files stay in {unverified}"
            ) from None
        finally:
            _write_manifest(unverified, folder, manifest)


def _report_older_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Print the files of an earlier export that this export does not replace."""
    names = {name for files in RUNTIME_FILES.values() for name in files} - manifest["files"].keys()
    names |= {f"{kind}/{MANIFEST}" for kind in KINDS}
    if older := sorted(name for name in names if (folder / name).exists()):
        print(f"{folder}: these files are from an earlier export: {', '.join(older)}")


def _move_files(unverified: Path, folder: Path) -> None:
    """Move the files to `folder`, the manifest last, and remove `unverified`."""
    for file in sorted(unverified.iterdir(), key=lambda file: file.name == MANIFEST):
        file.replace(folder / file.name)
    unverified.rmdir()


def _write_manifest(unverified: Path, folder: Path, manifest: dict[str, Any]) -> None:
    (unverified / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    write_folder_readme(unverified, folder, manifest)
