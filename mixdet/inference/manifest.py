"""Read `mixdet.json`, which describes an exported folder, and check the folder with it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mixdet.errors import MixDetError
from mixdet.file_kinds import MANIFEST, folder_kind, other_kind
from mixdet.inference.runtimes import RUNTIME_FILES, RUNTIME_PACKAGES

MANIFEST_FORMAT = 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _number_from(low: float, high: float, kinds: type | tuple = int) -> Callable[[Any], bool]:
    """Return a function that tells whether a value is a number from `low` to `high`, not NaN."""
    return lambda value: (
        isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
    )


_is_whole = _number_from(-1, 2**31)
_is_number = _number_from(-(2**31), 2**31, (int, float))
# A test for each value that `mixdet.inference` reads from the manifest (`mixdet.json`)
SCHEMA = {
    "kind": lambda value: value in ("raw", "end2end"),
    "input": {
        "width": _number_from(1, 2**15),
        "height": _number_from(1, 2**15),
        "channels": lambda value: value in ("RGB", "BGR"),
    },
    "classes": [_is_text],
    "levels": [{"anchors": _number_from(0, 2**31)}],
    "postprocess": {
        "score_thr": _is_number,
        "iou_thr": _number_from(0, 1, (int, float)),
        "nms_pre": _is_whole,
        "max_per_img": _is_whole,
        "min_bbox_size": _is_number,
    },
    "files": lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the `mixdet.json` of an exported folder.

    Raises:
        MixDetError: The file is missing, damaged, or of another format.
    """
    path = folder / MANIFEST
    if not path.is_file():  # this refuses a named pipe too: reading it would block
        if not folder.exists():
            raise MixDetError(f"{folder}: no such exported folder")
        kind = folder_kind(folder, exported=True) if folder.is_dir() else other_kind(folder)
        kind = kind or "a file: name a folder that tools/export.py wrote"
        raise MixDetError(f"{folder} is not an exported folder: it is {kind}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MixDetError(f"{path} cannot be read ({error}): export again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != MANIFEST_FORMAT:
        raise MixDetError(
            f"{path} is not of format {MANIFEST_FORMAT}: export with this version of mixdet"
        )
    if fault := _find_fault(manifest, SCHEMA):
        raise MixDetError(f"{path}: {fault} is missing or has a wrong value: export again")
    return manifest


def _find_fault(value: Any, schema: Any, where: str = "") -> str | None:
    """Return the place of the first value that fails its test, such as `levels[0].anchors`."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return where.removeprefix(".")
        children = [(value.get(key), rule, f"{where}.{key}") for key, rule in schema.items()]
    elif isinstance(schema, list):  # its only item is the schema of every item of the value
        if not isinstance(value, list) or not value:
            return where.removeprefix(".")
        children = [(item, schema[0], f"{where}[{index}]") for index, item in enumerate(value)]
    else:
        return None if schema(value) else where.removeprefix(".")
    return next(filter(None, (_find_fault(*child) for child in children)), None)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def usable_runtimes(
    folder: Path, manifest: dict[str, Any], runtime: str | None = None
) -> list[str]:
    """Return the runtimes whose files are in the folder and whose package is installed.

    Args:
        folder: The exported folder.
        manifest: The content of its `mixdet.json`.
        runtime: Consider this runtime only.

    Raises:
        MixDetError: No runtime is usable.
    """
    exported = [name for name, files in RUNTIME_FILES.items() if files[0] in manifest["files"]]
    if runtime is not None and runtime not in exported:
        raise MixDetError(
            f"{folder} has no file for the runtime {runtime!r}: use one of {', '.join(exported)}"
        )
    candidates = [runtime] if runtime else _copied(folder, exported)
    usable = [name for name in candidates if importlib.util.find_spec(RUNTIME_PACKAGES[name])]
    if not usable:
        extras = " or ".join(f'pip install "mixdet[{name}]"' for name in candidates)
        raise MixDetError(f"{folder}: no runtime for its files is installed: run {extras}")
    return usable


def _copied(folder: Path, runtimes: list[str]) -> list[str]:
    """Return the runtimes that have the largest fraction of their files in the folder.

    A folder is often copied to a device with the files of one runtime only.
    """
    parts = {
        name: sum((folder / file).is_file() for file in RUNTIME_FILES[name])
        / len(RUNTIME_FILES[name])
        for name in runtimes
    }
    return [name for name in runtimes if parts[name] == max(parts.values())]


def check_files(folder: Path, manifest: dict[str, Any], runtime: str) -> None:
    """Compare the files of a runtime with their SHA-256 in the manifest.

    Raises:
        MixDetError: A file is missing or was changed.
    """
    for name in RUNTIME_FILES[runtime]:
        path = folder / name
        if not path.is_file() or sha256(path) != manifest["files"].get(name):
            raise MixDetError(
                f"{path} is missing or was changed since the export ({MANIFEST} has its SHA-256): "
                "copy the folder again, or export again"
            )


def check_metadata(
    folder: Path, file: str, manifest: dict[str, Any], metadata: Mapping[str, Any]
) -> None:
    """Check that the manifest, which users may edit, still describes what the network computes.

    Users can change class names in any folder, and thresholds in a folder of kind raw. A network of
    kind end2end applies the thresholds itself. For this kind, users can only raise `score_thr` and
    lower `max_per_img`.

    Args:
        folder: The exported folder.
        file: Name of the network's file.
        manifest: The content of `mixdet.json`.
        metadata: The metadata of the network, see `mixdet.inference.runtimes.LoadedNetwork`.

    Raises:
        MixDetError: The network computes something else. The message states the correct value.
    """

    def refuse(key: str, value: Any, remedy: str) -> None:
        raise MixDetError(f"{folder / MANIFEST}: {key} is {value}, but {file} has {remedy}")

    or_export = "or change the config and export again"
    if (kind := metadata.get("kind", manifest["kind"])) != manifest["kind"]:
        refuse("kind", manifest["kind"], f"{kind}: write {kind}")
    channels = metadata.get("input", {}).get("channels", manifest["input"]["channels"])
    if channels != manifest["input"]["channels"]:
        refuse("input.channels", manifest["input"]["channels"], f"{channels}: write {channels}")
    classes = metadata.get("classes", manifest["classes"])
    if len(classes) != len(manifest["classes"]):
        count = len(manifest["classes"])
        remedy = (
            f"{len(classes)}: write {', '.join(classes)}, or other names in this order; to leave "
            "out a class, drop its boxes by their label"
        )
        refuse("the number of classes", count, remedy)
    if kind == "raw":
        return
    post = manifest["postprocess"]
    for key, value in metadata.get("postprocess", {}).items():
        if key == "score_thr" and post[key] < value:
            refuse(f"postprocess.{key}", post[key], f"{value}: write {value} or more, {or_export}")
        elif key == "max_per_img" and not 0 <= post[key] <= value:
            refuse(f"postprocess.{key}", post[key], f"{value}: write {value} or less, {or_export}")
        elif key not in ("score_thr", "max_per_img") and post[key] != value:
            refuse(f"postprocess.{key}", post[key], f"{value}: write {value}, {or_export}")
