"""Fixtures that run `python -m benchmarks` in this process."""

from __future__ import annotations

import sys

import pytest

from benchmarks.__main__ import main
from mixdet.errors import run_tool
from tests.conftest import ROOT


@pytest.fixture
def benchmark_command(monkeypatch, capfd):
    """Run a command in the repository's root; return (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            run_tool(main)
        out, err = capfd.readouterr()
        return end.value.code or 0, out, err

    return run


@pytest.fixture
def refused_command(benchmark_command):
    """Run a command that must refuse with exit code 1 and one line; return the line."""

    def run(*arguments):
        code, out, err = benchmark_command(*arguments)
        assert code == 1, out + err
        (line,) = err.strip().splitlines()
        assert line.startswith("error: ")
        return line

    return run
