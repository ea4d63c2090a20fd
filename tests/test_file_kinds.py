"""If a file or folder is no checkpoint, the error says what it is and what to name instead."""

from __future__ import annotations

import io
import json
import os
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
from mixdet.file_kinds import folder_kind, other_kind, require_checkpoint
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


# Name of a folder: (its files, words of the error, the path or the remedy that the error names)
FOLDERS = {
    "empty": ([], "an empty folder", "epoch_12.pth"),
    "other": (["notes.txt", "a/b/c.txt"], "a folder without a checkpoint", "epoch_12.pth"),
    "one": (["epoch_1.pth", "run.log"], "the checkpoint epoch_1.pth", "one/epoch_1.pth"),
    "work": (
        ["best_coco.pth", *(f"epoch_{n}.pth" for n in range(1, 13)), "vis_data/scalars.json"],
        "the checkpoints best_coco.pth, epoch_10.pth, epoch_11.pth, epoch_12.pth and 9 more",
        "work/epoch_12.pth",
    ),
    "named": (["a.safetensors", "b.ckpt", "c.pt"], "a.safetensors, b.ckpt, c.pt", "named/b.ckpt"),
    "work_dirs": (["mixnet/epoch_9.pth", "mixnet/epoch_10.pth"], "has one", "mixnet/epoch_10.pth"),
    "comparison": (["runs/row/seed_0/epoch_6.pth"], "has one", "runs/row/seed_0/epoch_6.pth"),
    "unpacked": (["archive/data.pkl", "archive/version"], "an unpacked file of torch", "the file"),
    "sharded": ([".metadata", "__0_0.distcp"], "in several files", "dcp_to_torch"),
    "copied": (["model.onnx", "README.md"], "a network of ONNX (model.onnx), but without", "copy"),
    "openvino": (["model.xml", "model.bin"], "a network of OpenVINO (model.xml)", "copy"),
    "voc": (["1.xml", "2.xml"], "a folder without a checkpoint", "epoch_12.pth"),
    "saved_model": (["saved_model.pb", "variables/variables.index"], "TensorFlow", "copy"),
    "a.mlpackage": (["Manifest.json"], "a network of Core ML", "epoch_12.pth"),
    "photographs": (["1.JPG", "2.png"], "a folder of images", "the checkpoint first"),
    "refused": (["unverified_x/mixdet.json"], "a folder without a checkpoint", "epoch_12.pth"),
}


@pytest.mark.parametrize("exported", [True, False])
@pytest.mark.parametrize("name", FOLDERS)
def test_the_error_says_what_kind_of_folder_was_given(tmp_path, name, exported):
    files, words, instead = FOLDERS[name]
    (tmp_path / name).mkdir()
    for file in files:
        (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / file).write_bytes(b"x")
    if name == "named":  # mmengine writes a path of the machine that trained
        (tmp_path / name / "last_checkpoint").write_text("/elsewhere/named/b.ckpt")
    with pytest.raises(MixDetError) as refusal:
        require_checkpoint(tmp_path / name, exported)
    message = str(refusal.value)
    assert message.startswith(f"{tmp_path / name} cannot be read as a checkpoint: it is a")
    assert words in message
    assert instead in message.rpartition(": ")[2]
    assert "\n" not in message


@pytest.mark.parametrize("with_weights", [True, False])
def test_an_exported_folder_is_accepted_or_its_weights_are_named(tmp_path, with_weights):
    for kind in ("raw", "end2end"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "mixdet.json").write_text("{}")
        if with_weights:
            safetensors.torch.save_file(STATE, tmp_path / kind / "model.safetensors")
    weights = f", or its weights, {tmp_path}/{{}}/model.safetensors" if with_weights else ""
    name = f"name the checkpoint that was exported{weights}"
    assert folder_kind(tmp_path / "raw", exported=True) is None
    assert folder_kind(tmp_path / "raw") == f"an exported folder: {name.format('raw')}"
    both = "a folder with the exported folders end2end, raw: "
    assert folder_kind(tmp_path) == both + name.format("end2end")
    assert (
        folder_kind(tmp_path, exported=True)
        == f"{both}name one of them, such as {tmp_path / 'end2end'}"
    )


def test_what_is_neither_a_file_nor_a_folder_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    for name in ("missing.pth", "pipe.pth"):
        with pytest.raises(MixDetError, match=f"{name}: no such checkpoint file$"):
            require_checkpoint(tmp_path / name)
        with pytest.raises(
            MixDetError, match=f"{name}: no such checkpoint file or exported folder$"
        ):
            require_checkpoint(tmp_path / name, exported=True)
