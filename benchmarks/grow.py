"""How cost grows with images, batches and kernels, and what bounds a network's speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn

from benchmarks.contestants import MATRIX, SIDE
from benchmarks.peers import initialize, our_config
from benchmarks.timing import alternate, median_of, one_thread, rates, spread
from benchmarks.train import fixed_batch, optim_wrapper
from mixdet.deploy.fuse import fuse
from mixdet.engine.hooks.keep_memory_hook import keep_freed_memory
from mixdet.machine import machine
from mixdet.visual.svg import color, svg
from mixdet.visual.tables import text_table

NETWORK = "MobileNetV2 {3,5,7}"
SIZE, BATCH = 320, 4
KERNELS = (3, 5, 7, 9, 11)
# What is changed, one at a time: (pixels, images, kernel sizes) for each of its values
SWEEPS: dict[str, Mapping[int, tuple]] = {
    "resolution": {size: (size, BATCH, (3, 5, 7)) for size in (160, 240, 320, 480, 640)},
    "batch": {batch: (SIZE, batch, (3, 5, 7)) for batch in (1, 2, 4, 8, 16, 32)},
    "groups": {groups: (SIZE, BATCH, KERNELS[:groups]) for groups in range(1, 6)},
    "kernel": {kernel: (SIZE, BATCH, kernel) for kernel in KERNELS},
}
AXES = {
    "resolution": "side of the image, pixels",
    "batch": "images in a batch",
    "groups": "MixConv groups: 3, then 5, 7, 9, 11",
    "kernel": "kernel size of all",
}
MODES = ("training", "inference")
COPIES = 1 << 20, 64 << 20
LARGEST = max(COPIES)
KINDS = ("1x1 convolutions", "depthwise convolutions", "full convolutions", "everything else")


def measure_grow(
    rounds: int = 3, sweeps: Mapping[str, Mapping[int, tuple]] = SWEEPS
) -> dict[str, object]:
    """Time a training step and a test step of SSDLite on MobileNetV2, on one core.

    Args:
        rounds: How often each is timed; the values of a sweep take turns.
        sweeps: What to change, as `SWEEPS`.

    Returns:
        machine, settings, sweeps, with images per second of the core's time, and parts, where the
        time of the fused network goes, with a matrix product for comparison.
    """
    found = machine()
    init_default_scope("mmdet")
    keep_freed_memory()
    with one_thread():
        rows = [row for name, points in sweeps.items() for row in _sweep(name, points, rounds)]
        parts = _parts(rounds)
    settings = {"network": NETWORK, "rounds": rounds, "size": SIZE, "batch": BATCH}
    return {"kind": "grow", "machine": found, "settings": settings, "sweeps": rows, "parts": parts}


def _sweep(name: str, points: Mapping[int, tuple], rounds: int) -> list[dict[str, object]]:
    tasks = {}
    for value, point in points.items():
        for mode, step in zip(MODES, _steps(*point), strict=True):
            tasks[value, mode] = step
        if point[1] == 1:  # batch norm on the 1x1 level needs more than one image
            del tasks[value, "training"]
    seconds = alternate(tasks, rounds, time.process_time)
    return [
        {"sweep": name, "value": value}
        | {mode: rates(seconds[value, mode], batch) for mode in MODES if (value, mode) in seconds}
        for value, (_, batch, _) in points.items()
    ]


def _steps(
    size: int, batch: int, kernel_sizes: int | Sequence[int]
) -> tuple[Callable[[int], object], Callable[[int], object]]:
    """A training step and a test step, of models that share their weights."""
    model = _model(size, kernel_sizes)
    tested = _model(size, kernel_sizes).eval()
    wrapper, data = optim_wrapper(model.train(), amp=False), fixed_batch(batch, size)

    @torch.inference_mode()
    def test(_turn: int) -> None:
        tested.test_step(data)

    return lambda _turn: model.train_step(data, wrapper), test


def _model(size: int, kernel_sizes: int | Sequence[int]) -> nn.Module:
    cfg = our_config(NETWORK, size)
    cfg["backbone"] = cfg["backbone"] | dict(kernel_sizes=kernel_sizes)
    model = MODELS.build(cfg)
    initialize(model)
    model.bbox_head.test_cfg["score_thr"] = 0.05  # above fresh weights' scores: the network alone
    return model


def _parts(rounds: int) -> list[dict[str, object]]:
    """Time, multiply-adds and bytes of the fused network's layers, by kind.

    Beside them a matrix product, and copies of as much as a layer moves and of what no cache holds.
    """
    network = fuse(_model(SIZE, (3, 5, 7)), "torch")
    spent, madds, moved = (dict.fromkeys(KINDS, 0) for _ in range(3))
    started, runs = [0.0], 0

    def count(_module: nn.Module, _inputs: tuple) -> None:
        nonlocal runs
        runs += 1

    def before(_module: nn.Module, _inputs: tuple) -> None:
        started[0] = time.process_time()

    def after(conv: nn.Conv2d, inputs: tuple, output: torch.Tensor) -> None:
        kind = KINDS[0 if conv.kernel_size == (1, 1) else 1 if conv.groups > 1 else 2]
        spent[kind] += time.process_time() - started[0]
        madds[kind] += output.numel() // len(output) * conv.weight[0].numel()
        moved[kind] += inputs[0].nbytes + output.nbytes + conv.weight.nbytes

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after)
    network.backbone.register_forward_pre_hook(count)
    x = torch.randn(1, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    matrix = torch.randn(SIDE, SIDE)
    copies = {size: [torch.zeros(size, dtype=torch.uint8) for _ in range(2)] for size in COPIES}
    with torch.inference_mode():
        tasks = {
            "network": lambda _: network(x, mode="tensor"),
            "product": lambda _: matrix @ matrix,
        }
        for size, (source, copy) in copies.items():
            tasks[size] = partial(_copies, source, copy, LARGEST // size)
        seconds = alternate(tasks, 4 * rounds, time.process_time)
    total = median_of(seconds["network"])["median"]
    spent = {kind: value / runs for kind, value in spent.items()}
    spent[KINDS[3]] = max(total - sum(spent.values()), 0.0)
    rows = [_part(kind, spent[kind], madds[kind] / runs, moved[kind] / runs) for kind in KINDS]
    product = median_of(seconds["product"])["median"]
    return [
        *rows,
        _part("the whole network", total, sum(madds.values()) / runs, sum(moved.values()) / runs),
        _part(MATRIX, product, SIDE**3, 3 * matrix.nbytes),
        *(
            _part(f"copies of {size >> 20} MiB", median_of(seconds[size])["median"], 0, 2 * LARGEST)
            for size in COPIES
        ),
    ]


def _copies(source: torch.Tensor, copy: torch.Tensor, times: int, _turn: int) -> None:
    for _ in range(times):
        copy.copy_(source)


def _part(what: str, seconds: float, madds: float, moved: float) -> dict[str, object]:
    numbers = {"madds": round(madds), "bytes": round(moved)}
    return {"what": what, "milliseconds": 1000 * seconds} | numbers


def grow_table(record: dict[str, object], markdown: bool = False) -> str:
    """The record of `measure_grow` as text: the sweeps, then what bounds the network."""
    rows = [
        [
            f"{row['sweep']} {row['value']}",
            *(spread(row[mode], 1) if mode in row else "" for mode in MODES),
        ]
        for row in record["sweeps"]
    ]
    # older records do not have them
    rates_of = [what for what in ("madds", "bytes") if what in record["parts"][0]]
    parts = [
        [
            part["what"],
            f"{part['milliseconds']:.1f}",
            f"{part['madds'] / 1e6:.0f}",
            # what is left beside the convolutions multiplies nothing, and can take no time at all
            *(
                f"{part[what] / part['milliseconds'] / 1e6:.1f}" if part[what] else ""
                for what in rates_of
            ),
        ]
        for part in record["parts"]
    ]
    header = ["one core, fused, 320 x 320", "ms", "million multiply-adds", "billion a second"]
    header += ["gigabytes a second, read and written"] * (len(rates_of) - 1)
    return "\n\n".join(
        [
            text_table(["", *(f"{mode}, images/s" for mode in MODES)], rows, markdown),
            text_table(header, parts, markdown),
        ]
    )


def grow_plot(record: dict[str, object]) -> str:
    """A plot for each sweep, as SVG."""
    names = list(dict.fromkeys(row["sweep"] for row in record["sweeps"]))

    def draw(axes) -> None:
        for name, ax in zip(names, axes.flat, strict=False):
            rows = [row for row in record["sweeps"] if row["sweep"] == name]
            for index, mode in enumerate(MODES, 1):
                timed = [row for row in rows if mode in row]
                values = [row["value"] for row in timed]
                middle, low, high = (
                    [row[mode][key] for row in timed] for key in ("median", "low", "high")
                )
                ax.plot(values, middle, "o-", color=color(index), label=mode)
                ax.fill_between(values, low, high, color=color(index), alpha=0.15, lw=0)
            ax.set(xlabel=AXES[name], ylabel="images a second", ylim=(0, None))
            if name == "batch":
                ax.set_xscale("log", base=2)
            ax.set_xticks(values, [str(value) for value in values])
            ax.minorticks_off()
        axes.flat[0].legend()

    return svg(draw, (9, 6.5), nrows=2, ncols=2)
