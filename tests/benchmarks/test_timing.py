"""Turns, medians and ratios, on a clock that the test turns."""

from __future__ import annotations

import pytest

from benchmarks.processes import take_turns
from benchmarks.timing import alternate, rates, speedup, spread


def test_tasks_take_turns_and_the_first_round_is_not_timed():
    calls, now = [], [0.0]

    def task(name: str, cost: float):
        def run(turn: int) -> None:
            calls.append((turn, name))
            now[0] += cost * (100 if turn == 0 else turn)

        return run

    tasks = {"peer": task("peer", 4.0), "ours": task("ours", 2.0)}
    seconds = alternate(tasks, rounds=3, clock=lambda: now[0])
    assert seconds == {"peer": [4.0, 8.0, 12.0], "ours": [2.0, 4.0, 6.0]}
    order = [name for _, name in calls]
    assert order == ["peer", "ours", "ours", "peer"] * 2
    assert rates(seconds["ours"], 12) == {"median": 3.0, "low": 2.0, "high": 6.0}


def test_a_warm_turn_times_its_second_run():
    class Process:
        """The first run in a turn, after another's, costs ten times as much."""

        latest, runs = None, 0

        def __call__(self, request: str) -> None:
            self.cpu = 1.0 if Process.latest is self else 10.0
            Process.latest = self
            Process.runs += 1

    tasks = {name: (Process(), "run") for name in ("peer", "ours")}
    assert take_turns(tasks, 2, threads=1, warm=True) == {"peer": [1.0, 1.0], "ours": [1.0, 1.0]}
    assert Process.runs == 2 * 2 * 3
    cold = take_turns(tasks, 2, threads=1)
    assert 10.0 in cold["peer"]
    assert Process.runs == 2 * 2 * 3 + 2 * 3


def test_the_speedup_is_taken_within_each_round():
    """So that a slow round, slow for both, does not count."""
    found = speedup([10.0, 100.0, 12.0], [5.0, 50.0, 4.0])
    assert found == {"median": 2.0, "low": 2.0, "high": pytest.approx(3.0)}
    assert spread(found, 1) == "2.0 (2.0 to 3.0)"
