"""Fixtures for the tests of the tools: images, a trained detector, running a tool."""

from __future__ import annotations

import runpy
import sys

import pytest

from tests.conftest import ROOT


@pytest.fixture
def tool(monkeypatch, capfd):
    """Run a tool in this process, from the repository's root; return (code, stdout, stderr)."""

    def run(name, *arguments):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", [f"tools/{name}.py", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(f"tools/{name}.py", run_name="__main__")
        out, err = capfd.readouterr()
        return end.value.code or 0, out, err

    return run


@pytest.fixture
def refusal(tool):
    """Run a tool that must refuse: exit code 1 and one line, which is returned."""

    def run(name, *arguments):
        code, out, err = tool(name, *arguments)
        assert code == 1, out + err
        lines = err.strip().splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in out + err
        return lines[0]

    return run
