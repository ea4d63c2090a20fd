"""Recognize files and folders that were given in place of a checkpoint, for the error message."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path, PurePosixPath

from mixdet.errors import MixDetError

MANIFEST = "mixdet.json"  # the description of an exported folder
WEIGHTS_FILE = "model.safetensors"  # the weights of the checkpoint, in an exported folder
UNVERIFIED_PREFIX = "unverified_"  # for the folder of an export whose files are not verified yet
CHECKPOINT_SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
NETWORK_SUFFIXES = {
    ".engine": "a network of TensorRT",
    ".mlmodel": "a network of Core ML",
    ".mnn": "a network of MNN",
    ".onnx": "a network of ONNX",
    ".ort": "a network of ONNX Runtime",
    ".param": "a network of ncnn",
    ".pb": "a network of TensorFlow",
    ".pte": "a network of ExecuTorch",
    ".tflite": "a network of LiteRT",
    ".xml": "a network of OpenVINO",
}
FIRST_BYTES = {
    b"version https://git-lfs": "a pointer of Git LFS: run `git lfs pull`",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"BZh": "a bzip2 archive: unpack it",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive: unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"\x89HDF": "an HDF5 file, as Keras writes it: name a checkpoint of torch",
    b"\x89PNG": "an image: name the checkpoint before the images",
    b"\xff\xd8\xff": "an image: name the checkpoint before the images",
    b"%PDF": "a PDF: name a checkpoint",
}
NAME_A_CHECKPOINT = "name a checkpoint, such as epoch_12.pth"
MAX_NAMES = 4  # in a message
MAX_FILES = 10_000  # at most this many files of a folder are looked at


def require_checkpoint(path: str | os.PathLike, exported: bool = False) -> None:
    """Check that a path leads to a file, which may be a checkpoint.

    Args:
        path: The path that the user gave.
        exported: Whether a folder that `tools/export.py` wrote is accepted, too.

    Raises:
        MixDetError: There is no such file, or it is a folder. The message says what the folder
            holds, and what to name instead.
    """
    if Path(path).is_dir():
        if kind := folder_kind(path, exported):
            raise MixDetError(f"{path} cannot be read as a checkpoint: it is {kind}")
    elif not Path(path).is_file():
        folder = " or exported folder" if exported else ""
        raise MixDetError(f"{path}: no such checkpoint file{folder}")


def folder_kind(path: str | os.PathLike, exported: bool = False) -> str | None:
    """Say what a folder is, and what to name instead.

    Args:
        path: The folder.
        exported: Whether the tool also accepts a folder that `tools/export.py` wrote.

    Returns:
        A part of a sentence, such as `an empty folder: name a checkpoint`. None for an exported
        folder if `exported` is set.
    """
    try:
        return _folder_kind(Path(path), exported)
    except OSError as error:
        return f"a folder that cannot be read ({error.strerror}): {NAME_A_CHECKPOINT}"


def _folder_kind(path: Path, exported: bool) -> str | None:
    files = sorted(islice(path.iterdir(), MAX_FILES), key=_natural_order)
    if (path / MANIFEST).is_file():
        return None if exported else f"an exported folder: {_instead_of(path)}"
    if path.suffix == ".mlpackage":
        return f"a network of Core ML: {NAME_A_CHECKPOINT}"
    if inner := [file for file in files if _is_verified_export(file)]:
        instead = f"name one of them, such as {inner[0]}" if exported else _instead_of(inner[0])
        return f"a folder with the exported folders {_listed(inner)}: {instead}"
    if any((folder / "data.pkl").is_file() for folder in (path, *files)):
        return (
            "an unpacked file of torch: name the file itself, which torch reads without unpacking"
        )
    if any(file.suffix == ".distcp" for file in files):
        return (
            "a checkpoint of torch in several files: join them with `python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {path} FILE.pth`"
        )
    if checkpoints := _checkpoints(files):
        kind = f"a folder with the checkpoint{'s' * (len(checkpoints) > 1)} {_listed(checkpoints)}"
        return f"{kind}: name the file, such as {_latest(path, checkpoints)}"
    if below := _checkpoints_below(path):
        return f"a folder without a checkpoint, but a folder in it has one: name {below}"
    if network := next(filter(_is_whole_network, files), None):
        return (
            f"a folder with {NETWORK_SUFFIXES[network.suffix]} ({network.name}), but without the "
            f"{MANIFEST} of an exported folder: copy the whole folder, or name a checkpoint"
        )
    if any(file.suffix.lower() in IMAGE_SUFFIXES for file in files):
        return "a folder of images: name the checkpoint first"
    return f"{'a folder without a checkpoint' if files else 'an empty folder'}: {NAME_A_CHECKPOINT}"


def _instead_of(folder: Path) -> str:
    """Say what to name instead of an exported folder, for a tool that takes checkpoints only."""
    instead = "name the checkpoint that was exported"
    weights = folder / WEIGHTS_FILE
    return f"{instead}, or its weights, {weights}" if weights.is_file() else instead


def _is_verified_export(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() and not folder.name.startswith(UNVERIFIED_PREFIX)


def _is_whole_network(file: Path) -> bool:
    """Tell whether a file is a network. An .xml file without weights beside it can be anything."""
    weights = file.with_suffix(".bin").is_file()
    return file.suffix in NETWORK_SUFFIXES and (file.suffix != ".xml" or weights)


def _checkpoints(files: Iterable[Path]) -> list[Path]:
    return [
        file
        for file in files
        if file.suffix in CHECKPOINT_SUFFIXES and file.name.isprintable() and file.is_file()
    ]


def _checkpoints_below(folder: Path) -> Path | None:
    """Return the latest checkpoint of the first subfolder that has one.

    The runs of a comparison are four folders deep.
    """
    for depth in range(1, 5):
        for file in islice(folder.glob("*/" * depth + "*"), MAX_FILES):
            if checkpoints := _checkpoints([file]):
                parent = checkpoints[0].parent
                return _latest(parent, _checkpoints(sorted(parent.iterdir(), key=_natural_order)))
    return None


def _latest(folder: Path, checkpoints: list[Path]) -> Path:
    """Return the checkpoint that mmengine's `last_checkpoint` names, or the last one in order."""
    try:
        last = folder / PurePosixPath((folder / "last_checkpoint").read_text().strip()).name
    except (OSError, ValueError):
        return checkpoints[-1]
    return last if last in checkpoints else checkpoints[-1]


def _natural_order(file: Path) -> list[str | int]:
    """Sort epoch_9 before epoch_12."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name)]


def _listed(files: list[Path]) -> str:
    shown = files if len(files) <= MAX_NAMES else [files[0], *files[1 - MAX_NAMES :]]
    more = len(files) - len(shown)
    return ", ".join(file.name for file in shown) + (f" and {more} more" if more else "")


def other_kind(path: str | os.PathLike) -> str | None:
    """Say what a file is if it is certainly not a checkpoint, and what to do instead.

    Torch's checkpoints are zip archives or pickles, and safetensors files start with the length of
    their header. The file is not unpacked, and no code in it is run.

    Args:
        path: The file.

    Returns:
        A part of a sentence, such as `a gzip archive: unpack it`. None if the file may be a
        checkpoint.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError:
        return None
    if path.name == MANIFEST or (_is_network(path) and (path.parent / MANIFEST).is_file()):
        return f"a file of an exported folder: name the folder, {path.parent}"
    if not start:
        return "an empty file: copy or download it again"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page: download the checkpoint itself"
    for prefix, kind in FIRST_BYTES.items():
        if start.startswith(prefix):
            return kind
    # The checkpoints of torch 0.1 are tar archives that start with `sys_info`.
    if start[257:262] == b"ustar" and not start.startswith(b"sys_info"):
        return "a tar archive: unpack it"
    if zipfile.is_zipfile(path):
        return _zip_kind(path)
    if path.suffix in NETWORK_SUFFIXES:
        return (
            f"{NETWORK_SUFFIXES[path.suffix]} without the {MANIFEST} of an exported folder: name a "
            "folder that tools/export.py wrote, or a checkpoint"
        )
    if start[8:10] == b'{"' and path.suffix != ".safetensors":
        return "a file of safetensors: give its name the suffix .safetensors"
    return None


def _is_network(path: Path) -> bool:
    return path.suffix in NETWORK_SUFFIXES or path.name in ("model.bin", "model.ncnn.bin")


def _zip_kind(path: Path) -> str | None:
    """Return what `other_kind` returns for a zip archive. Only its list of files is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
    if any(PurePosixPath(name).name == "data.pkl" for name in names):  # torch's own format
        renamed = path.suffix == ".safetensors"
        return "a file of torch: give its name the suffix .pth" if renamed else None
    if any(PurePosixPath(name).name == MANIFEST for name in names):
        return "a zip archive of an exported folder: unpack it, and name the folder"
    checkpoints = [name for name in names if PurePosixPath(name).suffix in CHECKPOINT_SUFFIXES]
    if checkpoints:
        return f"a zip archive that holds {checkpoints[0][:200]!a}: unpack it, and name this file"
    return "a zip archive without a checkpoint: name a checkpoint, such as epoch_12.pth"
