"""Checkpoints hold only tensors and plain Python values, and all that resuming needs."""

from __future__ import annotations

import copy
import io
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import scheduler as schedulers
from torch import nn

from mixdet.compat import checkpoint
from mixdet.compat.checkpoint import to_plain


def through_torch(value: object) -> object:
    """Save a value; return the value that torch reads back without running code."""
    buffer = io.BytesIO()
    checkpoint.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_mmengine_without_mixdet_resumes_without_the_history(tmp_path: Path) -> None:
    hub = MessageHub(tmp_path.name)
    hub.update_scalar("train/loss", 2.0)
    hub.update_info("epoch", 7)
    other = MessageHub(f"{tmp_path.name}_other")
    other.load_state_dict(through_torch(hub.state_dict()))
    assert other.get_info("epoch") == 7
    assert not other.log_scalars


@pytest.mark.parametrize(
    "make",
    [
        partial(schedulers.OneCycleLR, eta_max=0.5, total_steps=12),
        partial(schedulers.OneCycleLR, eta_max=0.5, total_steps=12, anneal_strategy="linear"),
        partial(schedulers.CosineAnnealingLR, T_max=12),
        partial(schedulers.LinearLR, start_factor=0.1, end=8),
        partial(schedulers.MultiStepLR, milestones=[3, 8]),
        partial(schedulers.PolyLR, eta_min=0.01, end=12),
        partial(schedulers.CosineRestartLR, periods=[4, 8], restart_weights=[1, 0.5], eta_min=0),
        partial(schedulers.ConstantMomentum, factor=0.5, end=7),
    ],
)
def test_a_restored_scheduler_continues_with_the_same_values(make: Callable) -> None:
    def start() -> tuple[torch.optim.Optimizer, object]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
        return optimizer, make(optimizer)

    def walk(optimizer: torch.optim.Optimizer, scheduler: object, steps: int) -> list:
        values = []
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
            values.append([optimizer.param_groups[0][key] for key in ("lr", "momentum")])
        return values

    one, two = start(), start()
    walk(*one, 5)
    two[0].load_state_dict(through_torch(one[0].state_dict()))
    two[1].load_state_dict(through_torch(one[1].state_dict()))
    assert walk(*one, 6) == walk(*two, 6)


def test_objects_and_functions_are_left_out_and_the_objects_are_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(checkpoint, "print_log", lambda text, **options: messages.append(text))
    point = namedtuple("Point", "x y")
    shared = torch.ones(2)
    value = {
        "kept": [np.int64(1), (np.bool_(True), np.str_("s")), {np.int8(3)}, torch.Size([2])],
        "config": ConfigDict(a={"b": [1]}),
        "default": defaultdict(list, {"k": [1.5]}),
        "point": point(1, 2),
        "path": tmp_path,
        "ordered": OrderedDict(z=1, a=2),
        "twice": [shared, shared],
        "object": object(),
        "inside": {"deep": [object()], "next": 1},
        "function": len,
    }
    read = through_torch(value)
    assert read["kept"] == [1, (True, "s"), {3}, torch.Size([2])]
    assert read["config"] == {"a": {"b": [1]}}
    assert type(read["config"]) is dict
    assert read["default"] == {"k": [1.5]}
    assert read["point"] == (1, 2)
    assert read["path"] == str(tmp_path)
    assert list(read["ordered"]) == ["z", "a"]
    assert read["twice"][0].data_ptr() == read["twice"][1].data_ptr()
    assert not {"object", "function"} & set(read)
    assert read["inside"] == {"next": 1}
    through_torch(value)  # a second save logs no message
    assert [text.split(" is ")[0] for text in messages] == [
        "checkpoint.object (object)",
        "checkpoint.inside.deep[0] (list)",
    ]


@pytest.mark.parametrize("history", [[], [1, 2, 3], [0.5, float("nan"), 1e300]])
def test_a_history_buffer_is_restored_exactly(tmp_path: Path, history: list) -> None:
    buffer = HistoryBuffer(history, [1] * len(history), max_length=50)
    hub = {"message_hub": {"log_scalars": {"a": buffer}, "runtime_info": {}, "resumed_keys": {}}}
    checkpoint.save(hub, tmp_path / "h.pth")
    restored = checkpoint.load(tmp_path / "h.pth")["message_hub"]["log_scalars"]["a"]
    for old, new in zip(buffer.data, restored.data, strict=True):
        np.testing.assert_array_equal(old, new)
        assert old.dtype == new.dtype
    assert restored.max_length == 50


def test_saving_does_not_change_the_values() -> None:
    value = {"message_hub": {"log_scalars": {"a": HistoryBuffer([1.0], [1])}}, "f": len}
    before = copy.copy(value)
    to_plain(value)
    assert value == before
    assert isinstance(value["message_hub"]["log_scalars"]["a"], HistoryBuffer)
