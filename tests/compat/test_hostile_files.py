"""Hostile files in place of a checkpoint: whoever reads them, what is in them never runs."""

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


def pickled(made: Path) -> bytes:
    return pickle.dumps({"state_dict": {}, "meta": Payload(made, os.mkdir)}, protocol=2)


def bare_pickle(made: Path) -> bytes:
    return pickled(made)


def pickle_after_torchs_magic_number(made: Path) -> bytes:
    return b"".join(
        pickle.dumps(each, protocol=2)
        for each in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    ) + pickled(made)


def zip_as_torch_writes(made: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(made))
        archive.writestr("archive/version", "3")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def zip_that_leads_out(made: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"../{made.name}", "written out of the folder")
        archive.writestr(str(made), "written by its absolute name")
    return buffer.getvalue()


def zip_of_a_program(made: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", f"import os; os.mkdir({str(made)!r})")
    return buffer.getvalue()


def tar_as_old_torch_wrote(made: Path) -> bytes:
    return tar({"sys_info": pickled(made), "pickle": pickled(made), "storages": pickled(made)})


def tar_that_leads_out(made: Path) -> bytes:
    return tar({f"../{made.name}": b"out of the folder", str(made): b"absolute"})


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
def test_its_payload_never_runs(tmp_path, kind, reader, suffix):
    made = tmp_path / "made"
    file = tmp_path / "in" / f"weights{suffix}"
    file.parent.mkdir()
    file.write_bytes(kind(made))
    with pytest.raises(MixDetError) as refusal:
        READERS[reader](str(file))
    assert file.name in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not made.exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["in", file.name]


def test_the_payloads_do_run_where_pickle_is_trusted(tmp_path):
    """So that the tests above can fail."""
    file, made = tmp_path / "weights.pth", tmp_path / "made"
    for kind in (pickle_after_torchs_magic_number, zip_as_torch_writes):
        file.write_bytes(kind(made))
        with suppress(Exception):  # once it has run, the rest of the file may be wrong
            torch.load(file, weights_only=False)
        assert made.exists()
        made.rmdir()
    pickle.loads(bare_pickle(made))
    assert made.exists()
