"""Comparison of checkpoints and other nested structures with tensors."""

from __future__ import annotations

import torch


def equal(a: object, b: object) -> bool:
    """Return whether two nested structures are equal. Tensors are compared without tolerance."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def assert_same_state(a: dict, b: dict) -> None:
    """Assert that two checkpoints have equal weights, optimizers, schedulers and progress."""
    for part in ("state_dict", "optimizer", "param_schedulers"):
        assert equal(a[part], b[part]), part
    for count in ("epoch", "iter"):
        assert a["meta"][count] == b["meta"][count]
