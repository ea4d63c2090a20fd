"""Fixtures that run a tool."""

from __future__ import annotations

import runpy

import pytest

from tests.conftest import ROOT, refusal_line


@pytest.fixture
def tool(call_main, monkeypatch):
    """Run a tool in this process, from the repository's root; return (code, stdout, stderr)."""

    def run(name, *arguments):
        monkeypatch.chdir(ROOT)
        file = f"tools/{name}.py"
        return call_main(lambda: runpy.run_path(file, run_name="__main__"), file, *arguments)

    return run


@pytest.fixture
def refusal(tool):
    """Run a tool that must end with exit code 1 and an error of one line; return the line."""
    return lambda name, *arguments: refusal_line(tool(name, *arguments))
