"""The wheel and the sdist have configs and tools, and `mixdet` finds them without a checkout."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from importlib import metadata
from pathlib import Path

import pytest
from mmengine.config import Config
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mixdet.config.shipped import config_names, find_config
from mixdet.errors import MixDetError
from tests.conftest import ROOT
from tests.exports import write_yolo

TOOLS = sorted(file.stem for file in (ROOT / "tools").glob("*.py"))


@pytest.fixture
def command(call_main, monkeypatch, tmp_path):
    """Run `mixdet` in this process, in an empty folder; return (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        return call_main(
            lambda: runpy.run_module("mixdet", run_name="__main__"), "mixdet", *arguments
        )

    return run


def test_help_lists_every_tool_and_an_unknown_command_is_refused(command):
    code, out, _ = command("--help")
    assert code == 0
    for tool in [*TOOLS, "configs"]:
        assert f"\n  {tool} " in out
    code, out, _ = command("train", "--help")
    assert code == 0
    assert out.startswith("usage: mixdet train")
    code, _, err = command("trian")
    assert code == 1
    assert err == "error: mixdet trian: no such command; see `mixdet --help` for the list\n"


def test_the_version_is_that_of_the_installed_package(command):
    version = metadata.version("mixdet")
    assert command("--version")[:2] == (0, f"mixdet {version}\n")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_configs_are_listed_and_copied(command, tmp_path):
    code, out, _ = command("configs")
    assert code == 0
    assert out.splitlines() == list(config_names())
    assert command("configs", "mine")[0] == 0
    copy = Config.fromfile(tmp_path / "mine" / "ssdlite_mixnet_s_digits.py")
    assert copy.model.backbone.arch == "s"
    code, _, err = command("configs", "mine")
    assert code == 1
    assert "name a new folder" in err


def test_a_config_is_found_by_its_name_and_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "ssdlite_mobilenet_v2_3x3_coco"
    for written in (name, f"{name}.py", f"configs/table1/{name}.py"):
        assert find_config(written) == config_names()[name]
    Path(f"{name}.py").write_text("")
    assert find_config(f"{name}.py") == Path(
        f"{name}.py"
    )  # a file in the working folder comes first
    with pytest.raises(MixDetError, match=r"did you mean ssdlite_mixnet_s_coco\?"):
        find_config("ssdlite_mixnet_s_cocoo")
    with pytest.raises(MixDetError, match="no such config file"):
        find_config(f"elsewhere/{name}.py")


def requirements(*extras: str) -> set[Requirement]:
    """Return the requirements of mixdet and of its extras, including extras that an extra names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    parsed = [Requirement(line) for line in lines]
    nested = {extra for item in parsed if item.name == "mixdet" for extra in item.extras}
    others = {item for item in parsed if item.name != "mixdet"}
    return others | requirements(*nested) if nested else others


def test_constraints_txt_pins_every_requirement_and_names_no_host():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {canonicalize_name(name): version for name, _, version in map(_pin, lines)}
    assert len(pins) == len(lines)
    for requirement in requirements("dev"):
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_every_imported_package_is_declared():
    modules = set()
    for file in (ROOT / "mixdet").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module.partition(".")[0])
    owners = metadata.packages_distributions()
    extras = ("dev", "litert", "executorch")
    declared = {canonicalize_name(requirement.name) for requirement in requirements(*extras)}
    undeclared = {
        module
        for module in modules - sys.stdlib_module_names - {"mixdet"}
        if not declared & set(map(canonicalize_name, owners.get(module, [module])))
    }
    assert not undeclared


def _pin(line: str) -> tuple[str, str, str]:
    """Split a line NAME==VERSION. Fail if it holds anything else, such as an address."""
    assert re.fullmatch(r"[\w.-]+==[\w.+!]+", line), line
    return line.partition("==")


@pytest.mark.heavy
def test_sdist_and_wheel_work_without_a_checkout(tmp_path):
    ignored = shutil.ignore_patterns(".*", "data", "work_dirs", "build", "*.egg-info", "tests")
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=ignored)
    build = "from setuptools.build_meta import build_sdist; print(build_sdist('..'))"
    name = shell(source, sys.executable, "-c", build).splitlines()[-1]
    unpacked = tmp_path / "unpacked"
    with tarfile.open(tmp_path / name) as archive:
        archive.extractall(unpacked, filter="data")
    (folder,) = unpacked.iterdir()
    pip = (sys.executable, "-m", "pip")
    shell(tmp_path, *pip, "wheel", "--no-deps", "--no-build-isolation", "-w", "wheels", folder)
    (wheel,) = (tmp_path / "wheels").glob("mixdet-*.whl")
    venv.create(tmp_path / "clean")
    python, empty = tmp_path / "clean/bin/python", tmp_path / "empty"
    shell(tmp_path, *pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    empty.mkdir()
    # The folder `path` on PYTHONPATH has the requirements of mixdet. Python ignores .pth files in
    # folders on PYTHONPATH, so it does not import mixdet itself from the checkout.
    path = sysconfig.get_path("purelib")
    where = "import mixdet; print(mixdet.__path__[0])"
    site = Path(shell(empty, python, "-c", where, path=path).strip()).parent
    assert site.is_relative_to(tmp_path / "clean")
    for kind in ("configs", "tools"):
        shipped = {file.relative_to(ROOT) for file in (ROOT / kind).rglob("*.[psy]*[!c]")}
        shipped -= {Path("tools/benchmark.py")}  # the benchmarks stay in the checkout
        assert shipped
        assert not [file for file in shipped if not (site / "mixdet/.mim" / file).is_file()]
    assert (site / "mixdet/.mim/model-index.yml").is_file()
    assert not [*site.rglob("tests"), *site.rglob("benchmark*")]

    mixdet = python.with_name("mixdet")
    commands = {*TOOLS} - {"benchmark"}
    usage = shell(empty, mixdet, "--help", path=path)
    assert {line.split()[0] for line in usage.splitlines() if line[:2] == "  "} > commands
    for command in sorted(commands):
        usage = shell(empty, mixdet, command, "--help", path=path)
        assert usage.startswith(f"usage: mixdet {command}")
    listed = shell(empty, python, "-m", "mixdet", "configs", path=path)
    assert listed.splitlines() == list(config_names())
    counted = shell(empty, mixdet, "complexity", "ssdlite_mixnet_s_digits", path=path)
    assert "ssdlite_mixnet_s_digits" in counted
    refused = shell(empty, mixdet, "train", "ssdlite_mixnet_s_coco", path=path, code=1)
    assert "data/coco" in refused.splitlines()[-1]
    assert "is missing" in refused

    write_yolo(empty / "workshop")
    config = "workshop.py"
    printed = shell(empty, mixdet, "init", "workshop", path=path)
    assert printed.endswith(f"next:\n  mixdet check_data {config}\n  mixdet train {config}\n")
    assert "nothing is wrong" in shell(empty, mixdet, "check_data", config, path=path)
    options = ("--cfg-options", "train_cfg.max_epochs=1", "train_cfg.val_interval=1")
    assert "coco/bbox_mAP" in shell(empty, mixdet, "train", config, *options, path=path)
    assert (empty / "work_dirs/workshop/epoch_1.pth").is_file()


def shell(folder: Path, *words: object, path: str = "", code: int = 0) -> str:
    """Run a command in a folder; return what it printed."""
    done = subprocess.run(
        list(map(str, words)),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout[-3000:]
    return done.stdout
