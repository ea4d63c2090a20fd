"""The export targets: what they support, which packages they need, how they are written."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixdet.deploy.half_precision import convert_onnx_to_float16, round_openvino_weights
from mixdet.deploy.int8_writer import Int8Writer
from mixdet.deploy.labeled_images import LabeledImages
from mixdet.deploy.onnx_file import write_onnx
from mixdet.deploy.quantization import blocks_of_nodes
from mixdet.deploy.raw_network import RawNetwork
from mixdet.deploy.to_mobile import save_executorch, save_litert, save_ncnn
from mixdet.deploy.to_onnx import convert_to_onnx
from mixdet.deploy.to_openvino import convert_to_openvino
from mixdet.errors import MixDetError
from mixdet.inference.runtimes import INT8_PACKAGES, RUNTIME_FILES


@dataclass(frozen=True)
class ExportTarget:
    """What a target needs and supports.

    Attributes:
        packages: Modules that an export imports. `pip install "mixdet[TARGET]"` installs them.
        precisions: The supported values of `--precision`.
        kinds: The supported values of `--kind`.
    """

    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    kinds: tuple[str, ...] = ("raw",)


BOTH_KINDS = ("raw", "end2end")
EXPORT_TARGETS = {
    "onnx": ExportTarget(
        ("onnx", "onnx_ir", "onnxscript", "onnxruntime"), ("fp32", "fp16", "int8"), BOTH_KINDS
    ),
    "openvino": ExportTarget(
        ("onnx", "onnx_ir", "onnxscript", "openvino"),
        ("fp32", "fp16", "bf16", "int8"),
        BOTH_KINDS,
    ),
    "ncnn": ExportTarget(("pnnx", "ncnn"), ("fp32", "fp16")),
    "litert": ExportTarget(("litert_torch", "ai_edge_litert"), ("fp32",)),
    "executorch": ExportTarget(("executorch",), ("fp32",)),
}
COREML_REFUSAL = (
    "--to coreml is not supported: on a Mac, convert mixdet.deploy.RawNetwork with coremltools "
    "(docs/deploy.md)"
)


def check_export_options(targets: Sequence[str], kinds: Sequence[str], precision: str) -> None:
    """Check that every target can be written in the kinds and the precision.

    Raises:
        MixDetError: A target is unknown, its packages are not installed, or it does not support the
            kinds or the precision.
    """
    for name in targets:
        if name == "coreml":
            raise MixDetError(COREML_REFUSAL)
        if name not in EXPORT_TARGETS:
            raise MixDetError(f"--to {name}: unknown target; use {', '.join(EXPORT_TARGETS)}")
        target = EXPORT_TARGETS[name]
        if precision not in target.precisions:
            supported = ", ".join(target.precisions)
            raise MixDetError(
                f"--to {name} does not support --precision {precision}; use {supported}"
            )
        if not set(kinds) <= set(target.kinds):
            raise MixDetError(f"--to {name} supports --kind {' and '.join(target.kinds)} only")
        _check_installed(name, target.packages, name)
        if precision == "int8":
            _check_installed(name, INT8_PACKAGES, "int8")


def _check_installed(target: str, packages: Sequence[str], extra: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MixDetError(
            f'--to {target}: {", ".join(missing)} not installed: pip install "mixdet[{extra}]"'
        )


def write_targets(
    targets: Sequence[str],
    folder: Path,
    network_for: Callable[[str], RawNetwork],
    manifest: dict[str, Any],
    metadata: dict[str, str],
    training_images: LabeledImages | None,
) -> None:
    """Write the files of the given targets in the precision that the manifest states.

    Args:
        targets: Names in `EXPORT_TARGETS`.
        folder: The folder to write to.
        network_for: Takes the name of a target, and returns the network fused for this target.
        manifest: The contents of `mixdet.json`. An INT8 export adds the key `float_layers`.
        metadata: Strings to store in ONNX files.
        training_images: Images of the training split for an INT8 export. None for any other
            precision.
    """
    precision = manifest["precision"]
    for name in targets:
        path = folder / RUNTIME_FILES[name][0]
        if name == "ncnn":
            save_ncnn(network_for(name), folder, half=precision == "fp16")
        elif name == "litert":
            save_litert(network_for(name), path)
        elif name == "executorch":
            save_executorch(network_for(name), path)
        else:
            with tempfile.TemporaryDirectory() as work:
                file = Path(work, RUNTIME_FILES["onnx"][0])
                model = convert_to_onnx(network_for(name), manifest["postprocess"], metadata)
                write_onnx(model, file)
                if training_images is not None:
                    blocks = blocks_of_nodes(model, squeeze_excite=False)
                    writer = Int8Writer(file, blocks, manifest, training_images)
                    manifest.setdefault("float_layers", {})[name] = writer.write(name, folder)
                elif name == "openvino":
                    _save_openvino(file, path, precision)
                elif precision == "fp16":
                    write_onnx(convert_onnx_to_float16(model, blocks_of_nodes(model)), path)
                else:
                    shutil.copy(file, path)


def _save_openvino(file: Path, path: Path, precision: str) -> None:
    import openvino

    model = convert_to_openvino(file)
    if precision != "fp32":
        round_openvino_weights(model, {"fp16": "f16", "bf16": "bf16"}[precision])
    openvino.save_model(model, path, compress_to_fp16=False)
