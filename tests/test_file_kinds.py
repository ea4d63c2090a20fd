"""If a file is no checkpoint, the error says what kind of file it is and what to pass instead."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from mixdet.compat import checkpoint
from mixdet.errors import MixDetError
from mixdet.file_kinds import other_kind
from mixdet.inference import Detector


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("epoch_12.pth"), io.BytesIO())
    return buffer.getvalue()


def saved(save, value) -> bytes:
    buffer = io.BytesIO()
    save(value, buffer)
    return buffer.getvalue()


def png(value, buffer) -> None:
    Image.new("RGB", value).save(buffer, "PNG")


STATE = {"a.weight": torch.ones(3)}
CASES = {
    "release.pth": (
        zipped(**{"model/epoch_12.pth": b"x"}),
        "holds 'model/epoch_12.pth': unpack it",
    ),
    "exported.zip": (zipped(**{"raw/mixdet.json": b"{}"}), "of an exported folder: unpack it"),
    "data.zip": (zipped(**{"readme.txt": b"x"}), "name a checkpoint, such as epoch_12.pth"),
    "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "page.pth": (b"\n<!DOCTYPE HTML><html>sign in</html>", "a web page"),
    "empty.pth": (b"", "an empty file"),
    "packed.pth": (b"\x1f\x8b\x08" + bytes(99), "a gzip archive: unpack it"),
    "packed.tar": (tarred(), "a tar archive: unpack it"),
    "model.onnx": (b"\x08\x08\x12\x07pytorch", "a network of ONNX without the mixdet.json"),
    "model.xml": (b"<?xml version='1.0'?><net>", "a network of OpenVINO without"),
    "model.tflite": (b"\x20\0\0\0TFL3" + bytes(99), "a network of LiteRT without"),
    "keras.pth": (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
    "a.png": (saved(png, (4, 4)), "an image"),
    "renamed.pth": (safetensors.torch.save(STATE), "give its name the suffix .safetensors"),
    "renamed.safetensors": (saved(lambda v, f: torch.save(v, f), STATE), "the suffix .pth"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_says_what_kind_of_file_was_given(tmp_path, name):
    content, words = CASES[name]
    (tmp_path / name).write_bytes(content)
    for read in (checkpoint.load, Detector):
        with pytest.raises(MixDetError) as refusal:
            read(str(tmp_path / name))
        message = str(refusal.value)
        assert message.startswith(f"{tmp_path / name} cannot be read as a checkpoint: it is ")
        assert words in message
        assert "\n" not in message


@pytest.mark.parametrize(
    "name", ["model.onnx", "model.xml", "model.bin", "model.pte", "mixdet.json"]
)
def test_the_error_for_a_file_of_an_exported_folder_names_the_folder(tmp_path, name):
    (tmp_path / name).write_bytes(b"network")
    (tmp_path / "mixdet.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(MixDetError, match=re.escape(f"name the folder, {tmp_path}")):
        Detector(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["a.pth", "a.pth.tar", "pytorch_model.bin", "a.pt", "a.safetensors"]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_are_recognized_with_every_usual_suffix(tmp_path, name, zipped):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    assert other_kind(path) is None
    assert np.array_equal(checkpoint.load(path)["a.weight"], np.ones(3))


def test_a_name_in_a_zip_archive_is_printed_without_control_characters(tmp_path):
    file = Path(tmp_path, "a.zip")
    file.write_bytes(zipped(**{"a\nb\x1b[31m.pth": b""}))
    assert other_kind(file).isprintable()
