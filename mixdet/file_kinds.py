"""Recognize files that were given in place of a checkpoint, for the error message."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path, PurePosixPath

MANIFEST = "mixdet.json"  # the description of an exported folder
CHECKPOINT_SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")
NETWORK_SUFFIXES = {
    ".engine": "a network of TensorRT",
    ".mlmodel": "a network of Core ML",
    ".mnn": "a network of MNN",
    ".onnx": "a network of ONNX",
    ".ort": "a network of ONNX Runtime",
    ".param": "a network of ncnn",
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
