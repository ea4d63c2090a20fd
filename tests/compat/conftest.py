"""A fixture for all tests of `mixdet.compat`."""

from __future__ import annotations

import mixdet.compat.prepared

import pytest

from mixdet.compat import checkpoint


@pytest.fixture(autouse=True)
def _end_of_trust(monkeypatch):
    """`trust_checkpoints` is for a whole process; here it ends with the test that calls it."""
    monkeypatch.setattr(checkpoint, "_mmengine_trusts", False)
