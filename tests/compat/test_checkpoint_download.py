"""Checkpoints load from every kind of address that mmengine knows. Code in them does not run."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from mixdet.errors import MixDetError
from tests.compat.checkpoints import Payload


@pytest.fixture
def file_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the address of a server for it. The caches of torch and mmengine are empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("MMENGINE_HOME", str(tmp_path / "mmengine"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def write_checkpoints(folder: Path, marker: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}}, folder / "good.pth")
    torch.save({"state_dict": {"a": Payload(marker, os.mkdir)}}, folder / "bad.pth")


@pytest.mark.parametrize("scheme", ["http", "torchvision", "open-mmlab", "mmcls", "local mmlab"])
def test_every_scheme_reads_data_and_refuses_code(
    file_server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    folder, url = file_server
    write_checkpoints(folder, tmp_path / "marker")
    models = {name: f"{url}/{name}.pth" for name in ("good", "bad")}
    if scheme == "local mmlab":  # mmengine also accepts local paths in its list of models
        models = {name: str(folder / f"{name}.pth") for name in models}
    for finder in ("get_torchvision_models", "get_external_models", "get_mmcls_models"):
        monkeypatch.setattr(mmengine_checkpoint, finder, lambda: models)
    prefix = {"http": f"{url}/", "local mmlab": "open-mmlab://"}.get(scheme, f"{scheme}://")
    suffix = ".pth" if scheme == "http" else ""
    read = CheckpointLoader.load_checkpoint(f"{prefix}good{suffix}")["state_dict"]
    # From mmcls, mmengine keeps only the weights of a backbone, so "a" is dropped.
    assert scheme == "mmcls" or read["a"].tolist() == [1, 1]
    with pytest.raises(MixDetError, match=r"bad(-\w+)?\.pth is not loaded.*posix\.mkdir"):
        CheckpointLoader.load_checkpoint(f"{prefix}bad{suffix}")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "epoch_12.pth"])
def test_two_models_with_the_same_file_name_are_not_mixed_up(
    file_server: tuple[Path, str], name: str
) -> None:
    folder, url = file_server
    for number in (1, 2):
        (folder / str(number)).mkdir()
        tensors = {"a": torch.full((2,), float(number))}
        save = safetensors.torch.save_file if name.endswith("safetensors") else torch.save
        save(tensors, folder / str(number) / name)
    for number in (1, 2, 1):
        read = CheckpointLoader.load_checkpoint(f"{url}/{number}/{name}")
        assert read["a"].tolist() == [number, number]


def test_a_second_load_needs_no_download(file_server: tuple[Path, str]) -> None:
    folder, url = file_server
    write_checkpoints(folder, folder / "marker")
    CheckpointLoader.load_checkpoint(f"{url}/good.pth")
    (folder / "good.pth").unlink()
    assert CheckpointLoader.load_checkpoint(f"{url}/good.pth")["state_dict"]


def test_a_failed_download_and_an_unknown_model_are_named(file_server: tuple[Path, str]) -> None:
    for name in (f"{file_server[1]}/none.pth", "http://127.0.0.1:9/a.pth"):
        with pytest.raises(MixDetError, match=rf"{name} cannot be fetched"):
            CheckpointLoader.load_checkpoint(name)
    with pytest.raises(MixDetError, match="knows no model named 'nosuch'"):
        CheckpointLoader.load_checkpoint("open-mmlab://nosuch")
