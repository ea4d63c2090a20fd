"""`grow`: time a detector as images, batches and kernels grow, and time its layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import mixdet.plugin

import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn

from benchmarks.layer_costs import layer_costs_table, measure_layer_costs
from benchmarks.networks import our_config
from benchmarks.timing import format_range, items_per_second, one_thread, time_in_turns
from benchmarks.training_step import sgd_wrapper
from benchmarks.weights import initialize
from mixdet.engine.hooks.keep_memory_hook import keep_freed_memory
from mixdet.machine import machine_record
from mixdet.visual.svg import figure_to_svg, series_color
from mixdet.visual.tables import text_table
from tests.synthetic import random_batch

NETWORK = "MobileNetV2 {3,5,7}"
SIZE, BATCH, KERNEL_SIZES = 320, 4, (3, 5, 7)
ALL_KERNEL_SIZES = (3, 5, 7, 9, 11)


class Setting(NamedTuple):
    """A network and its input."""

    size: int  # side of the square images in pixels
    batch: int
    kernel_sizes: int | tuple[int, ...]


# Each sweep changes one value of a setting
SWEEPS: dict[str, Mapping[int, Setting]] = {
    "resolution": {size: Setting(size, BATCH, KERNEL_SIZES) for size in (160, 240, 320, 480, 640)},
    "batch": {batch: Setting(SIZE, batch, KERNEL_SIZES) for batch in (1, 2, 4, 8, 16, 32)},
    "groups": {groups: Setting(SIZE, BATCH, ALL_KERNEL_SIZES[:groups]) for groups in range(1, 6)},
    "kernel": {kernel: Setting(SIZE, BATCH, kernel) for kernel in ALL_KERNEL_SIZES},
}
AXIS_LABELS = {
    "resolution": "side of the image, pixels",
    "batch": "images in a batch",
    "groups": "number of MixConv groups (kernels 3, 5, 7, 9, 11)",
    "kernel": "kernel size of all channels",
}
MODES = ("training", "inference")


def measure(
    rounds: int = 5, sweeps: Mapping[str, Mapping[int, Setting]] = SWEEPS
) -> dict[str, object]:
    """Time a training step and `test_step` of SSDLite on MobileNetV2, on one core.

    Args:
        rounds: Number of timed rounds. The values of a sweep take turns.
        sweeps: For each sweep, the setting of each value, as in `SWEEPS`.

    Returns:
        machine, settings, sweeps and parts. The sweeps have images per second of CPU time. `parts`
        is the result of `measure_layer_costs`.
    """
    measured_on = machine_record()
    init_default_scope("mmdet")
    keep_freed_memory()
    with one_thread():
        rows = [row for name, settings in sweeps.items() for row in _sweep(name, settings, rounds)]
        parts = measure_layer_costs(build_model(SIZE, KERNEL_SIZES), SIZE, 4 * rounds)
    settings = {"network": NETWORK, "rounds": rounds, "size": SIZE, "batch": BATCH}
    return {
        "kind": "grow",
        "machine": measured_on,
        "settings": settings,
        "sweeps": rows,
        "parts": parts,
    }


def build_model(size: int, kernel_sizes: int | Sequence[int]) -> nn.Module:
    """Build the detector with random weights. No score reaches the threshold, so NMS is idle."""
    cfg = our_config(NETWORK, size)
    cfg["backbone"] = cfg["backbone"] | dict(kernel_sizes=kernel_sizes)
    model = MODELS.build(cfg)
    initialize(model)
    model.bbox_head.test_cfg["score_thr"] = 0.05
    return model


def _sweep(name: str, settings: Mapping[int, Setting], rounds: int) -> list[dict[str, object]]:
    tasks = {}
    for value, setting in settings.items():
        for mode, step in zip(MODES, _steps(setting), strict=True):
            tasks[value, mode] = step
        if setting.batch == 1:  # batch norm on the 1x1 level cannot train on one image
            del tasks[value, "training"]
    seconds = time_in_turns(tasks, rounds, time.process_time)
    return [
        {"sweep": name, "value": value}
        | {
            mode: items_per_second(seconds[value, mode], setting.batch)
            for mode in MODES
            if (value, mode) in seconds
        }
        for value, setting in settings.items()
    ]


def _steps(setting: Setting) -> tuple[Callable[[int], object], Callable[[int], object]]:
    """Return a training step and a test step, each with its own model."""
    training_model = build_model(setting.size, setting.kernel_sizes).train()
    test_model = build_model(setting.size, setting.kernel_sizes).eval()
    optim_wrapper = sgd_wrapper(training_model, amp=False)
    data = random_batch(setting.batch, setting.size)

    @torch.inference_mode()
    def test(_turn: int) -> None:
        test_model.test_step(data)

    return lambda _turn: training_model.train_step(data, optim_wrapper), test


def table(record: dict[str, object], markdown: bool = False) -> str:
    """Lay out the record of `measure` as text: the sweeps, then the cost of the layers."""
    rows = [
        [
            f"{row['sweep']} {row['value']}",
            *(format_range(row[mode], 1) if mode in row else "" for mode in MODES),
        ]
        for row in record["sweeps"]
    ]
    sweeps = text_table(["", *(f"{mode}, images/s" for mode in MODES)], rows, markdown)
    return f"{sweeps}\n\n{layer_costs_table(record['parts'], markdown)}"


def page_table(record: dict[str, object]) -> str:
    """Lay out the cost of the layers as Markdown. The plot shows the sweeps."""
    return layer_costs_table(record["parts"], markdown=True)


def plot(record: dict[str, object]) -> str:
    """Draw each sweep on its own axes as SVG."""
    names = list(dict.fromkeys(row["sweep"] for row in record["sweeps"]))

    def draw(axes) -> None:
        for name, ax in zip(names, axes.flat, strict=False):
            rows = [row for row in record["sweeps"] if row["sweep"] == name]
            for index, mode in enumerate(MODES, 1):
                timed = [row for row in rows if mode in row]
                values = [row["value"] for row in timed]
                median, low, high = (
                    [row[mode][key] for row in timed] for key in ("median", "low", "high")
                )
                ax.plot(values, median, "o-", color=series_color(index), label=mode)
                ax.fill_between(values, low, high, color=series_color(index), alpha=0.15, lw=0)
            ax.set(xlabel=AXIS_LABELS[name], ylabel="images per second", ylim=(0, None))
            if name == "batch":
                ax.set_xscale("log", base=2)
            ax.set_xticks(values, [str(value) for value in values])
            ax.minorticks_off()
        axes.flat[0].legend()

    return figure_to_svg(draw, (9, 6.5), nrows=2, ncols=2)
