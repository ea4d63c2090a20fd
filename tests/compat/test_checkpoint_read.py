"""Reading a checkpoint runs no code. For a file that is no checkpoint, the error names the file."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from mixdet.compat import checkpoint
from mixdet.compat.checkpoint import trust_checkpoints
from mixdet.errors import MixDetError
from tests.compat.checkpoints import Payload
from tests.states import equal


def harmless_looking(folder: str) -> int:
    Path(folder).mkdir()
    return 0


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("call", "wanted"), [(os.mkdir, "posix.mkdir"), (harmless_looking, "harmless_looking")]
)
def test_code_in_a_checkpoint_does_not_run(
    tmp_path: Path, call: Callable, wanted: str, zipped: bool
) -> None:
    marker, file = tmp_path / "marker", tmp_path / "file.pth"
    content = {"state_dict": {}, "meta": Payload(marker, call)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(MixDetError) as caught:
        load_checkpoint(nn.Linear(1, 1), str(file))
    message = str(caught.value)
    assert message.startswith(f"{file} is not loaded: it would have to run code")
    assert wanted in message
    assert "--trust-checkpoint" in message
    assert "\n" not in message
    assert not marker.exists()
    checkpoint.load(file, trust=True)
    assert marker.exists()
    marker.rmdir()
    trust_checkpoints()
    load_checkpoint(nn.Linear(1, 1), str(file))
    assert marker.exists()


def test_trust_holds_for_one_call_of_load_only(tmp_path: Path) -> None:
    """`trust_checkpoints` affects mmengine's loader only; `load` needs `trust` at each call."""
    marker, file = tmp_path / "marker", tmp_path / "file.pth"
    torch.save({"state_dict": {}, "meta": Payload(marker, os.mkdir)}, file)
    checkpoint.load(file, trust=True)
    marker.rmdir()
    for read in (checkpoint.load, CheckpointLoader.load_checkpoint):
        with pytest.raises(MixDetError, match="--trust-checkpoint"):
            read(str(file))
    trust_checkpoints()
    with pytest.raises(MixDetError, match="--trust-checkpoint"):
        checkpoint.load(file)
    assert not marker.exists()


def test_a_checkpoint_that_mmengine_wrote_without_mixdet_needs_trust(tmp_path: Path) -> None:
    file = tmp_path / "plain_mmengine.pth"
    torch.save(
        {"state_dict": {}, "message_hub": {"log_scalars": {"a": HistoryBuffer([1.0], [1])}}}, file
    )
    with pytest.raises(MixDetError, match=r"plain_mmengine.pth.*HistoryBuffer.*--trust-checkpoint"):
        CheckpointLoader.load_checkpoint(str(file))
    trust_checkpoints()
    read = CheckpointLoader.load_checkpoint(str(file))
    assert read["message_hub"]["log_scalars"]["a"].current() == 1.0


def content_of(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "other zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif kind == "list":
        torch.save([1, 2], buffer)
    elif kind == "script":
        torch.jit.save(torch.jit.script(nn.Linear(1, 1)), buffer)
    else:
        torch.save({"state_dict": {"a": torch.ones(1000)}}, buffer)
    content = buffer.getvalue()
    texts = {"empty": b"", "text": b"hello, no checkpoint\n", "page": b"<!DOCTYPE html><html>"}
    return texts.get(kind, content[: len(content) // 2] if kind == "truncated" else content)


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["empty", "text", "page", "truncated", "other zip", "list"])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(
    tmp_path: Path, kind: str, suffix: str, trusted: bool
) -> None:
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(content_of(kind))
    if trusted:
        trust_checkpoints()
    with pytest.raises(MixDetError) as caught:
        CheckpointLoader.load_checkpoint(str(file))
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
    assert "trust" not in str(caught.value)


def test_a_config_in_place_of_a_checkpoint_is_refused_with_an_example(tmp_path: Path) -> None:
    file = tmp_path / "config.py"
    file.write_bytes(b"model = dict()")
    with pytest.raises(MixDetError, match=r"config.py cannot be read.*name one, such as"):
        checkpoint.load(file)


def test_a_torchscript_module_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "scripted.pt"
    file.write_bytes(content_of("script"))
    with pytest.raises(MixDetError, match=r"scripted.pt cannot be read.*TorchScript"):
        checkpoint.load(file)


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors", "."])
def test_a_missing_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    for load in (CheckpointLoader.load_checkpoint, checkpoint.load):
        with pytest.raises(MixDetError, match=re.escape(str(file))):
            load(str(file))


def test_safetensors_load_as_a_state_dict(tmp_path: Path) -> None:
    state = nn.Linear(3, 2).state_dict()
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    model = nn.Linear(3, 2)
    load_checkpoint(model, str(tmp_path / "weights.safetensors"), map_location="cpu", strict=True)
    assert equal(dict(state), dict(model.state_dict()))


def test_pretrained_initialization_refuses_code(tmp_path: Path) -> None:
    marker, file = tmp_path / "marker", tmp_path / "file.pth"
    torch.save({"state_dict": {"x.w": Payload(marker, os.mkdir)}}, file)
    for prefix in ({}, {"prefix": "x."}):
        module = BaseModule({"type": "Pretrained", "checkpoint": str(file), **prefix})
        with pytest.raises(MixDetError, match=r"posix\.mkdir"):
            module.init_weights()
    assert not marker.exists()
