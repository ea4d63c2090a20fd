"""Hostile files in place of a checkpoint are refused, and none of their code runs."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch import nn

from mixdet.compat import checkpoint
from mixdet.errors import MixDetError
from mixdet.inference import Detector
from tests.compat.checkpoints import Payload


def pickled(marker: Path) -> bytes:
    return pickle.dumps({"state_dict": {}, "meta": Payload(marker, os.mkdir)}, protocol=2)


def bare_pickle(marker: Path) -> bytes:
    return pickled(marker)


def pickle_after_torchs_magic_number(marker: Path) -> bytes:
    return b"".join(
        pickle.dumps(value, protocol=2)
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    ) + pickled(marker)


def zip_as_torch_writes(marker: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(marker))
        archive.writestr("archive/version", "3")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def zip_that_leads_out(marker: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"../{marker.name}", "written out of the folder")
        archive.writestr(str(marker), "written by its absolute name")
    return buffer.getvalue()


def zip_of_a_program(marker: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", f"import os; os.mkdir({str(marker)!r})")
    return buffer.getvalue()


def tar_as_old_torch_wrote(marker: Path) -> bytes:
    return tar(
        {"sys_info": pickled(marker), "pickle": pickled(marker), "storages": pickled(marker)}
    )


def tar_that_leads_out(marker: Path) -> bytes:
    return tar({f"../{marker.name}": b"out of the folder", str(marker): b"absolute"})


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


KINDS = (
    bare_pickle,
    pickle_after_torchs_magic_number,
    zip_as_torch_writes,
    zip_that_leads_out,
    zip_of_a_program,
    tar_as_old_torch_wrote,
    tar_that_leads_out,
)
READERS = {
    "our load": checkpoint.load,
    "mmengine's load": lambda file: load_checkpoint(nn.Linear(1, 1), file),
    "Detector": Detector,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_payload_of_a_hostile_file_never_runs(tmp_path, kind, reader, suffix):
    marker = tmp_path / "marker"
    file = tmp_path / "in" / f"weights{suffix}"
    file.parent.mkdir()
    file.write_bytes(kind(marker))
    with pytest.raises(MixDetError) as refusal:
        READERS[reader](str(file))
    assert file.name in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not marker.exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["in", file.name]


def test_payloads_run_where_pickle_is_trusted(tmp_path):
    """The payloads above work: the test above would fail if a reader trusted pickle."""
    file, marker = tmp_path / "weights.pth", tmp_path / "marker"
    for kind in (pickle_after_torchs_magic_number, zip_as_torch_writes):
        file.write_bytes(kind(marker))
        with suppress(Exception):  # after the payload, torch may fail on the rest of the file
            torch.load(file, weights_only=False)
        assert marker.exists()
        marker.rmdir()
    pickle.loads(bare_pickle(marker))
    assert marker.exists()
