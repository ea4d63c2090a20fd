"""The exported files name no folder of the machine that exported them."""

from __future__ import annotations

import json
import os
import shutil
import sysconfig
import tempfile
from pathlib import Path

import pytest
from mmengine.config import Config

from mixdet.deploy import export
from mixdet.deploy.machine_paths import without_folders
from mixdet.errors import MixDetError
from mixdet.inference.trained import TrainedNetwork
from tests.conftest import ROOT


def folders_of_this_machine(*others: Path) -> list[bytes]:
    """Return folders of this machine whose paths must not be in an exported file."""
    packages = sysconfig.get_path("purelib")
    folders = {ROOT, Path.home(), Path.cwd(), tempfile.gettempdir(), packages, *others}
    return [os.fsencode(folder) for folder in folders if Path(folder) != Path("/")]


def assert_no_folder_is_named(export_folder: Path, *others: Path) -> None:
    files = [file for file in export_folder.rglob("*") if file.is_file()]
    assert len(files) > 3
    for file in files:
        content = file.read_bytes()
        for folder in folders_of_this_machine(export_folder, *others):
            assert folder not in content, f"{file} names {folder}"
            assert folder.replace(b"/", b"\\/") not in content


PACKAGES = {"ncnn": "pnnx", "litert": "litert_torch", "executorch": "executorch"}


def test_no_written_file_names_a_folder(exported, images, trained):
    assert_no_folder_is_named(exported, images, trained[0].parent)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("targets", "kinds", "precision"),
    [
        (("onnx", "openvino"), ("raw", "end2end"), "int8"),
        (("onnx", "openvino", "ncnn"), ("raw",), "fp16"),
        (("litert",), ("raw",), "fp32"),
        (("executorch",), ("raw",), "fp32"),
    ],
)
def test_no_written_file_names_a_folder_if_the_data_were_moved(
    trained, images, tmp_path, targets, kinds, precision
):
    """The images are in another folder than the config says, as with `--data-root`."""
    pytest.importorskip(PACKAGES.get(targets[-1], targets[-1]))
    moved = shutil.copytree(images, tmp_path / "moved data")
    settings = dict(kinds=kinds, precision=precision, data_root=str(moved), max_drop=1.0)
    export(*trained, tmp_path / "out", targets=targets, calibration_images=2, **settings)
    assert_no_folder_is_named(tmp_path / "out", images, moved, trained[0].parent)


def test_the_readme_of_a_refused_export_names_no_folder(trained, images, tmp_path, monkeypatch):
    def fail(folder, *_):
        raise MixDetError(f"onnxruntime cannot read {folder}/model.onnx")

    monkeypatch.setattr("mixdet.deploy.exporter.verify", fail)
    with pytest.raises(MixDetError, match=rf"cannot read {tmp_path}/unverified_\w+/model.onnx"):
        export(*trained, tmp_path, precision="fp16")
    (folder,) = tmp_path.glob("unverified_*")
    assert "onnxruntime cannot read model.onnx" in (folder / "README.md").read_text()
    assert_no_folder_is_named(folder, images, tmp_path)


def test_the_config_of_a_manifest_keeps_everything_but_folders(exported, trained):
    text = json.loads((exported / "raw" / "mixdet.json").read_text())["config"]
    written, cfg = Config.fromstring(text, ".py"), TrainedNetwork(trained[1], trained[0]).cfg
    assert Path(cfg.data_root).is_absolute()
    assert written.data_root == Path(cfg.data_root).name
    assert written.model == cfg.model
    assert written.test_pipeline == cfg.test_pipeline


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/my data/coco/", "coco/"),
        ("/data", "data"),
        ("~/coco/a.json", "a.json"),
        ("C:\\Users\\me\\coco", "coco"),
        (r"\\server\share\a.json", "a.json"),
        ("file:///home/me/mlruns", "mlruns"),
        ("sqlite:////home/me/runs.db", "runs.db"),
        (
            "onnx: cannot read /tmp/x/model.onnx (it is empty)",
            "onnx: cannot read model.onnx (it is empty)",
        ),
        ("load_from='/home/me/a.pth'", "load_from='a.pth'"),
        ("data/coco/annotations/a.json", None),
        ("../data/a.json", None),
        ("https://host.example/a/b.pth", None),
        ("s3://bucket/coco/a.json", None),
        ("mmdet::ssd/ssd300_coco.py", None),
        ("blocks.0/1, and/or 1/2", None),
        (
            {"path_mapping": {"/home/me/data/": "s3://data/"}},
            {"path_mapping": {"data/": "s3://data/"}},
        ),
        ((1, "/a/b", [None, "/c/d"]), (1, "b", [None, "d"])),
    ],
)
def test_an_absolute_path_becomes_its_last_name(text, expected):
    assert without_folders(text) == (text if expected is None else expected)
