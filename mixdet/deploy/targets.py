"""What an exported folder can hold: a writer for each target, and the packages that it needs."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixdet.deploy.half import half_onnx, half_weights
from mixdet.deploy.labeled_images import LabeledImages
from mixdet.deploy.network import RawNetwork
from mixdet.deploy.quantize import Quantizer, blocks
from mixdet.deploy.to_mobile import save_executorch, save_litert, save_ncnn
from mixdet.deploy.to_onnx import save_onnx
from mixdet.deploy.to_openvino import convert
from mixdet.errors import MixDetError
from mixdet.inference.runtimes import FILES, INT8_PACKAGES


@dataclass(frozen=True)
class Target:
    """What a target can be.

    Attributes:
        packages: Modules that must be there, from the extra of the target's name.
        precisions: What it can be exported as.
        kinds: What it can hold.
    """

    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    kinds: tuple[str, ...] = ("raw",)


BOTH = ("raw", "end2end")
TARGETS = {
    "onnx": Target(("onnx", "onnxscript", "onnxruntime"), ("fp32", "fp16", "int8"), BOTH),
    "openvino": Target(("onnx", "onnxscript", "openvino"), ("fp32", "fp16", "bf16", "int8"), BOTH),
    "ncnn": Target(("pnnx", "ncnn"), ("fp32", "fp16")),
    "litert": Target(("litert_torch", "ai_edge_litert"), ("fp32",)),
    "executorch": Target(("executorch",), ("fp32",)),
}
COREML = (
    "--to coreml: not written: convert mixdet.deploy.network.RawNetwork with coremltools, on a Mac "
    "(docs/deploy.md)"
)


def require(targets: Sequence[str], kinds: Sequence[str], precision: str) -> None:
    """Refuse what cannot be written here.

    Raises:
        MixDetError: A target is unknown, lacks a package, the kind or the precision.
    """
    for name in targets:
        if name == "coreml":
            raise MixDetError(COREML)
        if name not in TARGETS:
            raise MixDetError(f"--to {name}: unknown; there are: {', '.join(TARGETS)}")
        target = TARGETS[name]
        if precision not in target.precisions:
            raise MixDetError(
                f"--to {name} --precision {precision}: {name} takes {', '.join(target.precisions)}"
            )
        if not {*kinds} <= {*target.kinds}:
            raise MixDetError(f"--to {name}: of --kind {' and '.join(target.kinds)} alone")
        _installed(name, target.packages, name)
        if precision == "int8":
            _installed(name, INT8_PACKAGES, "int8")


def _installed(target: str, packages: Sequence[str], extra: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MixDetError(
            f'--to {target}: {", ".join(missing)} not installed: pip install "mixdet[{extra}]"'
        )


def write(
    targets: Sequence[str],
    folder: Path,
    network: Callable[[str], RawNetwork],
    manifest: dict[str, Any],
    metadata: dict[str, str],
    training: LabeledImages | None,
) -> None:
    """Write the files of some targets, in the precision that the manifest says.

    Args:
        targets: Names in `TARGETS`.
        folder: Where.
        network: Gives the network, fused for a target.
        manifest: Its manifest; INT8 adds `float_layers`.
        metadata: Strings to store in ONNX files.
        training: What INT8 is calibrated on: `manifest["calibration_images"]` of these.
    """
    precision = manifest["precision"]
    for name in targets:
        path = folder / FILES[name][0]
        if name == "ncnn":
            save_ncnn(network(name), folder, precision == "fp16")
        elif name == "litert":
            save_litert(network(name), path)
        elif name == "executorch":
            save_executorch(network(name), path)
        else:
            with tempfile.TemporaryDirectory() as work:
                file = Path(work, FILES["onnx"][0])
                save_onnx(network(name), file, manifest["postprocess"], metadata)
                if training is not None:
                    kept = Quantizer(file, manifest, training).write(name, folder)
                    manifest.setdefault("float_layers", {})[name] = kept
                elif name == "openvino":
                    _save_openvino(file, path, precision)
                elif precision == "fp16":
                    half_onnx(file, path, blocks(file))
                else:
                    shutil.copy(file, path)


def _save_openvino(file: Path, path: Path, precision: str) -> None:
    import openvino

    model = convert(file)
    if precision != "fp32":
        half_weights(model, {"fp16": "f16", "bf16": "bf16"}[precision])
    openvino.save_model(model, path, compress_to_fp16=False)
