"""Fixtures that run `python -m benchmarks`."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import main
from mixdet.errors import run_tool
from tests.conftest import ROOT, refusal_line


@pytest.fixture
def benchmark_command(call_main, monkeypatch):
    """Run a command in the repository's root; return (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.chdir(ROOT)
        return call_main(lambda: run_tool(main), "benchmarks", *arguments)

    return run


@pytest.fixture
def refused_command(benchmark_command):
    """Run a command that must fail with exit code 1 and a message of one line; return the line."""
    return lambda *arguments: refusal_line(benchmark_command(*arguments))
