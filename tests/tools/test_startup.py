"""`--help` imports no large package, so that it answers at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))
HEAVY = {"torch", "mmdet", "mmcv", "mmengine", "cv2", "numpy", "matplotlib", "onnx", "gradio"}


def imported(*arguments: str) -> set[str]:
    """Run Python in a new process; return the top-level packages that it imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines()}


@pytest.mark.parametrize("name", TOOLS)
def test_help_imports_no_large_package(name):
    packages = imported(f"tools/{name}.py", "--help")
    assert "argparse" in packages
    assert not packages & HEAVY


def test_importing_mixdet_imports_no_large_package():
    packages = imported("-c", "import mixdet; print(1)")
    assert "mixdet" in packages
    assert not packages & HEAVY
