"""Measure time, multiply-adds and bytes of a network's layers, and the processor's peak rates."""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.inference_forms import MATRIX_PRODUCT, MATRIX_SIZE
from benchmarks.timing import median_and_range, time_in_turns
from mixdet.analysis.complexity import count_madds_by_module
from mixdet.models.fusing import fuse
from mixdet.visual.tables import text_table

CONV_KINDS = ("1x1 convolutions", "depthwise convolutions", "full convolutions")
# Bytes of the timed memory copies. The first number is about what a layer reads and writes. The
# second number is more than the processor's caches hold.
COPY_BYTES = 1 << 20, 64 << 20


class ConvTimer:
    """Hooks that add up time and memory traffic of a network's convolutions, by kind.

    Attributes:
        seconds: CPU time of all calls, by kind.
        bytes: Bytes that all calls read and write, by kind.
    """

    def __init__(self, network: nn.Module) -> None:
        self.seconds, self.bytes = dict.fromkeys(CONV_KINDS, 0.0), dict.fromkeys(CONV_KINDS, 0)
        self._start = 0.0
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(self._before)
                module.register_forward_hook(self._after)

    def _before(self, conv: nn.Conv2d, inputs: tuple[Tensor]) -> None:
        self._start = time.process_time()

    def _after(self, conv: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        seconds = time.process_time() - self._start
        self.seconds[conv_kind(conv)] += seconds
        self.bytes[conv_kind(conv)] += inputs[0].nbytes + output.nbytes + conv.weight.nbytes


def conv_kind(conv: nn.Conv2d) -> str:
    """Return which of `CONV_KINDS` a convolution is."""
    if conv.kernel_size == (1, 1):
        return CONV_KINDS[0]
    return CONV_KINDS[1] if conv.groups > 1 else CONV_KINDS[2]


def measure_layer_costs(model: nn.Module, size: int, rounds: int) -> list[dict[str, object]]:
    """Time the layers of a fused detector on one image, on one thread.

    Args:
        model: The detector. This function fuses it.
        size: Side of the square image in pixels.
        rounds: Number of timed rounds.

    Returns:
        Milliseconds, multiply-adds and bytes of each kind of layer and of the whole network. The
        last entries, a matrix product and memory copies, show the peak rates of the processor.
    """
    network = fuse(model, "torch")
    image = torch.randn(1, 3, size, size).contiguous(memory_format=torch.channels_last)
    madds = dict.fromkeys(CONV_KINDS, 0)
    for module, count in count_madds_by_module(network, image, mode="tensor").items():
        if isinstance(module, nn.Conv2d):
            madds[conv_kind(module)] += count
    timer = ConvTimer(network)
    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE)
    total_copied = max(COPY_BYTES)
    with torch.inference_mode():
        tasks = {
            "network": lambda _turn: network(image, mode="tensor"),
            "product": lambda _turn: matrix @ matrix,
        }
        for copy_bytes in COPY_BYTES:
            source, target = (torch.zeros(copy_bytes, dtype=torch.uint8) for _ in range(2))
            tasks[copy_bytes] = partial(_copy, source, target, total_copied // copy_bytes)
        seconds = time_in_turns(tasks, rounds, time.process_time)
    medians = {task: median_and_range(values)["median"] for task, values in seconds.items()}
    runs = rounds + 1  # `timer` counts the untimed round too
    conv_rows = [
        _row(kind, timer.seconds[kind] / runs, madds[kind], timer.bytes[kind] / runs)
        for kind in CONV_KINDS
    ]
    conv_seconds, conv_bytes = (sum(sums.values()) / runs for sums in (timer.seconds, timer.bytes))
    other_seconds = max(medians["network"] - conv_seconds, 0.0)
    return [
        *conv_rows,
        _row("everything else", other_seconds, 0, 0),
        _row("the whole network", medians["network"], sum(madds.values()), conv_bytes),
        _row(MATRIX_PRODUCT, medians["product"], MATRIX_SIZE**3, 3 * matrix.nbytes),
        *(
            _row(f"copies of {copy_bytes >> 20} MiB", medians[copy_bytes], 0, 2 * total_copied)
            for copy_bytes in COPY_BYTES
        ),
    ]


def _copy(source: Tensor, target: Tensor, times: int, _turn: int) -> None:
    for _ in range(times):
        target.copy_(source)


def _row(name: str, seconds: float, madds: int, byte_count: float) -> dict[str, object]:
    milliseconds = 1000 * seconds
    return dict(what=name, milliseconds=milliseconds, madds=madds, bytes=round(byte_count))


def layer_costs_table(parts: list[dict], markdown: bool = False) -> str:
    """Lay out the result of `measure_layer_costs` as text."""
    rows = [
        [
            part["what"],
            f"{part['milliseconds']:.1f}",
            f"{part['madds'] / 1e6:.0f}",
            # A row whose multiply-adds or bytes are 0, such as "everything else", gets no rate.
            *(
                f"{part[key] / part['milliseconds'] / 1e6:.1f}" if part[key] else ""
                for key in ("madds", "bytes")
            ),
        ]
        for part in parts
    ]
    header = ["one core, fused, 320 x 320", "ms", "million multiply-adds", "billion/s"]
    return text_table([*header, "GB/s"], rows, markdown)
