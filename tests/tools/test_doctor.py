"""tools/doctor.py reports the installed packages and the data, and what is wrong with them."""

from __future__ import annotations

import importlib
import json
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import huggingface_hub
import pytest

from mixdet import doctor
from mixdet.inference import runtimes
from tests.conftest import ROOT

TOOL = ROOT / "tools" / "doctor.py"


def find(checks: list[doctor.Check], name: str) -> doctor.Check:
    (check,) = (check for check in checks if check.name == name)
    return check


def run_tool(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", [str(TOOL), *args])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(TOOL), run_name="__main__")
    return caught.value.code


def fail_import(monkeypatch: pytest.MonkeyPatch, module: str, error: Exception) -> None:
    original = importlib.import_module

    def import_module(name: str, package: str | None = None):
        if name == module:
            raise error
        return original(name, package)

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)


def test_an_installation_without_coco_is_reported_as_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_tool(monkeypatch, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["works"]
    checks = [doctor.Check(**check) for check in report["checks"]]
    assert find(checks, "torch").value == metadata.version("torch")
    assert find(checks, "nms").level == "ok"
    assert find(checks, "onnx").value == f"onnxruntime {metadata.version('onnxruntime')}"
    assert int(find(checks, "cores").value) >= 1
    coco = find(checks, "COCO")
    assert (coco.level, coco.value) == ("note", "data/coco does not exist")
    assert "instances_train2017.json" in coco.remedy
    assert "created on first use" in find(checks, "digit scenes").value


def test_data_of_the_configs_are_found(tmp_path: Path) -> None:
    for name in doctor.COCO_LAYOUT[:-1]:
        (tmp_path / "data/coco" / name).mkdir(parents=True)
    for split in ("train", "val"):
        (tmp_path / "data/digit_scenes/annotations").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"data/digit_scenes/annotations/instances_{split}.json").touch()
    checks = doctor.examine(tmp_path)
    assert find(checks, "COCO").value.endswith("data/coco: no val2017")
    assert find(checks, "digit scenes").value.endswith("digit_scenes")
    (tmp_path / "data/coco/val2017").mkdir()
    assert find(doctor.examine(tmp_path), "COCO").level == "ok"


@pytest.mark.parametrize(
    ("module", "error", "value"),
    [
        ("timm", ModuleNotFoundError("No module named 'timm'", name="timm"), "not installed"),
        ("skimage", ModuleNotFoundError("No", name="lazy_loader"), "needs lazy_loader"),
        ("mmdet", AssertionError("MMCV==9 is used but incompatible.\nMore"), "MMCV==9 is used"),
        ("cv2", ImportError("libGL.so.1: cannot open shared object file"), "libGL.so.1"),
    ],
)
def test_a_failed_import_is_a_problem_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys, module: str, error: Exception, value: str
) -> None:
    fail_import(monkeypatch, module, error)
    assert run_tool(monkeypatch) == 1
    lines = capsys.readouterr().out.splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith(f" ! {module} "))
    assert value in lines[at]
    assert lines[at + 1].lstrip().startswith("-> ")
    assert lines[-1] == "1 problem(s), marked with !"
    assert "More" not in "".join(lines)


def test_a_missing_runtime_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runtimes.RUNTIME_PACKAGES, "onnx", "no_such_module")
    check = find(doctor.examine(), "onnx")
    assert (check.level, check.value) == ("ok", 'not installed: pip install "mixdet[onnx]"')


def test_two_packages_with_the_same_module_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor.metadata, "packages_distributions", lambda: {"mmcv": ["mmcv", "mmcv-lite"]}
    )
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "2.1.0")
    check = find(doctor.examine(), "mmcv")
    assert check.level == "problem"
    assert check.value == "2.1.0 and 2.1.0 (mmcv-lite) overwrite each other's files"
    assert check.remedy.startswith("`pip uninstall mmcv mmcv-lite`")


def test_weights_are_looked_up_only_with_the_option_online(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = []

    def metadata_of(url: str, timeout: float) -> None:
        urls.append(url)
        if "mixnet_l" in url:
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata_of)
    cached = "timm/mixnet_s.ft_in1k"
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda repo, file: "/cache/file" if repo == cached else None,
    )
    offline = doctor.examine(tmp_path)
    assert find(offline, "mixnet_s.ft_in1k").value == "in the cache"
    assert "--online" in find(offline, "mixnet_m.ft_in1k").value
    assert not urls
    online = doctor.examine(tmp_path, online=True)
    assert len(urls) == len(doctor.WEIGHTS) - 1
    assert find(online, "mixnet_m.ft_in1k").value == "can be downloaded"
    unreachable = find(online, "mixnet_l.ft_in1k")
    assert unreachable.value == "cannot be downloaded: ConnectionError: no route"
    assert "init_cfg.checkpoint=FILE" in unreachable.remedy
    assert doctor.works(online)


def test_the_tool_runs_without_any_package(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-I", str(TOOL)]  # only the standard library can be imported
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert not result.stderr
    assert " ! torch" in result.stdout
    assert "pip install -e ." in result.stdout
