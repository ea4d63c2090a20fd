"""Worker processes are timed in turns, and the processes of a group train the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist

from benchmarks.processes import remote_function, time_remote_in_turns
from benchmarks.training_step import prepare_training
from tests.synthetic import random_batch


class FakeRemoteFunction:
    """A remote function. A call takes 1 second if the last call had the same function, else 10."""

    latest, runs = None, 0

    def __call__(self, argument: str) -> None:
        self.cpu = 1.0 if FakeRemoteFunction.latest is self else 10.0
        FakeRemoteFunction.latest = self
        FakeRemoteFunction.runs += 1


def test_only_the_second_run_of_a_warm_turn_is_timed():
    tasks = {name: (FakeRemoteFunction(), "run") for name in ("first", "second")}
    seconds = time_remote_in_turns(tasks, 2, threads=1, warm=True)
    assert seconds == {"first": [1.0, 1.0], "second": [1.0, 1.0]}
    assert FakeRemoteFunction.runs == 2 * 2 * 3  # 2 tasks, 2 calls, and 3 rounds, the first untimed
    assert 10.0 in time_remote_in_turns(tasks, 2, threads=1)["first"]
    assert FakeRemoteFunction.runs == 2 * 2 * 3 + 2 * 3


def weights_after_a_step(rank: int, processes: int, init_method: str):
    """Train one step together with the other processes. Return a function that gives weights."""
    if processes > 1:
        dist.init_process_group("gloo", init_method, rank=rank, world_size=processes)
    model, step = prepare_training("MixNet-S", "eager", 160, 2, amp=False, threads=1)
    step(random_batch(2, 160, seed=rank))
    weights = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
    return lambda _: weights


@pytest.mark.heavy
def test_processes_of_one_group_train_the_same_weights(tmp_path):
    init_method = f"file://{tmp_path}/init"
    with (
        remote_function(weights_after_a_step, 0, 2, init_method) as first,
        remote_function(weights_after_a_step, 1, 2, init_method) as second,
        remote_function(weights_after_a_step, 0, 1, "") as alone,
        remote_function(weights_after_a_step, 0, 1, "") as again,
    ):
        weights = [function(None) for function in (first, second, alone, again)]
    assert np.array_equal(weights[0], weights[1])
    # The group averages the gradients of four images. A single process averages those of two.
    assert not np.array_equal(weights[0], weights[2])
    assert np.array_equal(weights[2], weights[3])  # all start from the same weights
