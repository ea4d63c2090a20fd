"""A training step: mmdet's SSDLite on timm's networks against ours, in turns."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from mixdet.analysis.benchmark.peers import NETWORKS, our_model, peer_model, share_weights
from mixdet.analysis.benchmark.processes import served, take_turns
from mixdet.analysis.benchmark.timing import rates, speedup, spread
from mixdet.analysis.machine import machine
from mixdet.analysis.tables import text_table
from mixdet.engine.amp import amp_wrapper_type
from mixdet.engine.hooks.memory import keep_freed_memory

SIDES = ("mmdet", "mixdet")
BOXES = 7  # a picture; COCO has 7.3


def measure_train(
    rounds: int = 5,
    size: int = 320,
    batch: int = 8,
    amp: bool = False,
    threads: Sequence[int] = (1, 2),
    networks: Sequence[str] = tuple(NETWORKS),
) -> dict[str, object]:
    """Time steps on a batch that stays: normalise, forward, losses, backward, SGD.

    The weights are the same at the start, on the GPU where there is one.

    Args:
        rounds: How often each is timed, after one untimed step. The two sides have a process each.
        size: Side of the square pictures in pixels.
        batch: Pictures a step.
        amp: Both in mixed precision: float16 on a GPU, bfloat16 on a CPU.
        threads: Numbers of them to compute with.
        networks: Some of `NETWORKS`.

    Returns:
        machine, settings and networks; images a second as median, low and high.
    """
    found = machine()
    settings = {"size": size, "batch": batch, "amp": amp}
    rows = [
        _network(name, rounds, threads=number, **settings)
        for number in threads
        for name in networks
    ]
    settings |= {"rounds": rounds, "device": _device()}
    return {"kind": "train", "machine": found, "settings": settings, "networks": rows}


def fixed_batch(batch: int, size: int, seed: int = 0) -> dict[str, list]:
    """Pictures of noise with random boxes, as a data loader gives them."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
    samples = []
    for _ in range(batch):
        corners = torch.rand(BOXES, 2, generator=generator) * size * 0.6
        sides = (0.05 + 0.35 * torch.rand(BOXES, 2, generator=generator)) * size
        sample = DetDataSample(
            metainfo=dict(img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corners, corners + sides], 1),
            labels=torch.randint(0, 80, (BOXES,), generator=generator),
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample)
    return {"inputs": list(inputs), "data_samples": samples}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _network(name: str, rounds: int, **settings: object) -> dict[str, object]:
    """Time both sides, each in a process of its own, which it may set up as it likes."""
    with contextlib.ExitStack() as stack:
        asks = {
            side: stack.enter_context(served(partial(_start, **settings), name, side))
            for side in SIDES
        }
        tasks = {side: (ask, "step") for side, ask in asks.items()}
        seconds = take_turns(tasks, rounds, settings["threads"])
        peaks = {side: ask("peak") for side, ask in asks.items()}
    result: dict[str, object] = {"network": name, "threads": settings["threads"]}
    result["speedup"] = speedup(*seconds.values())
    for side, found in seconds.items():
        images = rates(found, settings["batch"])
        result[side] = {"images_per_second": images, "peak_mb": peaks[side]}
    return result


def _start(
    name: str, side: str, size: int, batch: int, amp: bool, threads: int
) -> Callable[[object], float]:
    """A process that answers 'peak', its memory in MB, and makes a step for any other request."""
    from mmengine.registry import init_default_scope

    logging.disable(logging.INFO)  # where each weight comes from
    init_default_scope("mmdet")
    torch.set_num_threads(threads)
    device = _device()
    if side == "mixdet" and device == "cpu":
        keep_freed_memory()  # as `KeepMemoryHook` does in every run of ours
    models = {"mmdet": peer_model(name, size), "mixdet": our_model(name, size)}
    torch.manual_seed(0)
    models["mmdet"].init_weights()
    share_weights(models["mmdet"], models["mixdet"])
    model = models[side].to(device).train()
    wrapper, data = optim_wrapper(model, amp), fixed_batch(batch, size)
    before = _resident("VmRSS")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def answer(request: object) -> float:
        if request == "peak":
            peak = _resident("VmHWM") - before
            return torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else peak
        model.train_step(data, wrapper)
        if device == "cuda":
            torch.cuda.synchronize()
        return 0.0

    return answer


def optim_wrapper(model: nn.Module, amp: bool) -> OptimWrapper:
    """SGD as in the recipes, in mixed precision or not."""
    kind = amp_wrapper_type("OptimWrapper") if amp else "OptimWrapper"
    # a rate of almost nothing: the work is the same, and nothing diverges on noise
    optimizer = dict(type="SGD", lr=1e-6, momentum=0.9, weight_decay=4e-5)
    return build_optim_wrapper(model, dict(type=kind, optimizer=optimizer))


def _resident(key: str) -> float:
    """Memory of this process in MB as Linux counts it, now (VmRSS) or at most (VmHWM)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith(key)), math.nan)


def train_table(record: dict[str, object], markdown: bool = False) -> str:
    """The record of `measure_train` as text."""
    rows = [
        [
            row["network"],
            str(row["threads"]),
            *(spread(row[side]["images_per_second"], 1) for side in SIDES),
            spread(row["speedup"], 2),
            *(f"{row[side]['peak_mb']:.0f}" for side in SIDES),
        ]
        for row in record["networks"]
    ]
    header = ["network", "threads", "timm in mmdet, images/s", "MixDet, images/s", "times faster"]
    return text_table([*header, "timm in mmdet, MB", "MixDet, MB"], rows, markdown)
