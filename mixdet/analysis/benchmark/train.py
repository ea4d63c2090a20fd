"""A training step: mmdet's SSDLite on timm's networks against ours, in turns."""

from __future__ import annotations

import math
import multiprocessing
from functools import partial
from pathlib import Path

import torch
from torch import nn

from mixdet.analysis.benchmark.machine import machine
from mixdet.analysis.benchmark.peers import NETWORKS, our_model, peer_model, share_weights
from mixdet.analysis.benchmark.timing import alternate, rates, speedup, spread
from mixdet.analysis.tables import text_table
from mixdet.engine.amp import amp_wrapper_type

BOXES = 7  # a picture; COCO has 7.3


def measure_train(
    rounds: int = 5,
    size: int = 320,
    batch: int = 8,
    amp: bool = False,
    networks: tuple[str, ...] = tuple(NETWORKS),
) -> dict[str, object]:
    """Time steps on a batch that stays: normalise, forward, losses, backward, SGD.

    The weights are the same at the start, on the GPU where there is one.

    Args:
        rounds: How often each is timed, after one untimed step.
        size: Side of the square pictures in pixels.
        batch: Pictures a step.
        amp: Both in mixed precision: float16 on a GPU, bfloat16 on a CPU.
        networks: Some of `NETWORKS`.

    Returns:
        machine, settings and networks; images a second as median, low and high.
    """
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    found = machine()
    settings = {
        "rounds": rounds,
        "size": size,
        "batch": batch,
        "amp": amp,
        "threads": torch.get_num_threads(),
        "device": _device(),
    }
    rows = [_network(name, rounds, size, batch, amp) for name in networks]
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


def _models(name: str, size: int) -> dict[str, nn.Module]:
    peer, ours = peer_model(name, size), our_model(name, size)
    peer.init_weights()
    share_weights(peer, ours)
    return {"mmdet": peer.to(_device()).train(), "mixdet": ours.to(_device()).train()}


def _wrapper(model: nn.Module, amp: bool):
    from mmengine.optim import build_optim_wrapper

    kind = amp_wrapper_type("OptimWrapper") if amp else "OptimWrapper"
    # a rate of almost nothing: the work is the same, and nothing diverges on noise
    optimizer = dict(type="SGD", lr=1e-6, momentum=0.9, weight_decay=4e-5)
    return build_optim_wrapper(model, dict(type=kind, optimizer=optimizer))


def _network(name: str, rounds: int, size: int, batch: int, amp: bool) -> dict[str, object]:
    models = _models(name, size)
    data = fixed_batch(batch, size)

    def step(model, wrapper, _turn: int) -> None:
        model.train_step(data, wrapper)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    steps = {side: partial(step, model, _wrapper(model, amp)) for side, model in models.items()}
    seconds = alternate(steps, rounds)
    result: dict[str, object] = {"network": name, "speedup": speedup(*seconds.values())}
    for side, found in seconds.items():
        result[side] = {
            "images_per_second": rates(found, batch),
            "peak_mb": _peak(name, side, size, batch, amp),
        }
    return result


def _peak(name: str, side: str, size: int, batch: int, amp: bool) -> float:
    """Most memory in MB of two steps: the GPU's, or what a process of its own grows by."""
    if torch.cuda.is_available():
        return _two_steps(name, side, size, batch, amp)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_two_steps, (name, side, size, batch, amp))


def _two_steps(name: str, side: str, size: int, batch: int, amp: bool) -> float:
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    model = _models(name, size)[side]
    wrapper, data = _wrapper(model, amp), fixed_batch(batch, size)
    before = _resident("VmRSS")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        model.train_step(data, wrapper)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return _resident("VmHWM") - before


def _resident(key: str) -> float:
    """Memory of this process in MB as Linux counts it, now (VmRSS) or at most (VmHWM)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith(key)), math.nan)


def train_table(record: dict[str, object], markdown: bool = False) -> str:
    """The record of `measure_train` as text."""
    sides = ("mmdet", "mixdet")
    rows = [
        [
            row["network"],
            *(spread(row[side]["images_per_second"], 1) for side in sides),
            spread(row["speedup"], 2),
            *(f"{row[side]['peak_mb']:.0f}" for side in sides),
        ]
        for row in record["networks"]
    ]
    header = ["network", "timm in mmdet, images/s", "MixDet, images/s", "times faster"]
    return text_table([*header, "timm in mmdet, MB", "MixDet, MB"], rows, markdown)
