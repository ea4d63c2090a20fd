"""Timing in turns, medians and speedups, on a clock that the test sets."""

from __future__ import annotations

import pytest

from benchmarks.timing import format_range, items_per_second, speedup, time_in_turns


def test_tasks_take_turns_and_the_first_round_is_not_timed():
    calls, now = [], [0.0]

    def task(name: str, cost: float):
        def run(turn: int) -> None:
            calls.append((turn, name))
            now[0] += cost * (100 if turn == 0 else turn)

        return run

    tasks = {"peer": task("peer", 4.0), "ours": task("ours", 2.0)}
    seconds = time_in_turns(tasks, rounds=3, clock=lambda: now[0])
    assert seconds == {"peer": [4.0, 8.0, 12.0], "ours": [2.0, 4.0, 6.0]}
    order = [name for _, name in calls]
    assert order == ["peer", "ours", "ours", "peer"] * 2
    assert items_per_second(seconds["ours"], 12) == {"median": 3.0, "low": 2.0, "high": 6.0}


def test_the_speedup_is_taken_within_each_round():
    """A round that is slow for both tasks does not change the speedup."""
    ratios = speedup([10.0, 100.0, 12.0], [5.0, 50.0, 4.0])
    assert ratios == {"median": 2.0, "low": 2.0, "high": pytest.approx(3.0)}
    assert format_range(ratios, 1) == "2.0 (2.0-3.0)"
