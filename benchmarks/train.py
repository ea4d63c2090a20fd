"""A training step: mmdet's SSDLite on timm's networks against ours, in turns."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from benchmarks.peers import (
    NETWORKS,
    check_known,
    initialize,
    our_model,
    peer_model,
    share_weights,
)
from benchmarks.processes import served, take_turns
from benchmarks.timing import rates, speedup, spread
from mixdet.engine.amp import amp_wrapper_type
from mixdet.engine.hooks.cuda_graph_hook import capture
from mixdet.engine.hooks.keep_memory_hook import KeepMemoryHook
from mixdet.machine import machine
from mixdet.visual.tables import text_table

FORMS = ("eager", "CUDA graph", "compiled")  # of ours; mmdet's side is always eager
BOXES = 7  # an image; COCO has 7.3


def measure_train(
    rounds: int = 5,
    size: int = 320,
    batch: int = 8,
    amp: bool = False,
    threads: Sequence[int] = (1, 2),
    networks: Sequence[str] = tuple(NETWORKS),
    forms: Sequence[str] = FORMS[:1],
) -> dict[str, object]:
    """Time steps on a batch that stays: normalize, forward, losses, backward, SGD.

    The weights are the same at the start, on the GPU where there is one.

    Args:
        rounds: How often each is timed, after one untimed step. All have a process each.
        size: Side of the square images in pixels.
        batch: Images a step.
        amp: Both in mixed precision: float16 on a GPU, bfloat16 on a CPU.
        threads: Numbers of them to compute with.
        networks: Some of `NETWORKS`.
        forms: Some of `FORMS`: ours as it is, with `CudaGraphHook`, or with backbone, neck and
            predictors under `torch.compile`.

    Returns:
        machine, settings and networks; images a second as median, low and high.

    Raises:
        MixDetError: There is no GPU for a CUDA graph, or a name is unknown.
    """
    check_known("--networks", networks, NETWORKS)
    check_known("--forms", forms, FORMS if device() == "cuda" else (FORMS[0], FORMS[2]))
    found = machine()
    settings = {"size": size, "batch": batch, "amp": amp}
    rows = [
        row
        for number in threads
        for name in networks
        for row in _network(name, rounds, forms, threads=number, **settings)
    ]
    settings |= {"rounds": rounds, "device": device()}
    return {"kind": "train", "machine": found, "settings": settings, "networks": rows}


def fixed_batch(batch: int, size: int, seed: int = 0) -> dict[str, list]:
    """Images of noise, in planes, with random boxes, as a data loader of mmdet's gives them."""
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


def device() -> str:
    """Where training would compute: "cuda" or "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _network(
    name: str, rounds: int, forms: Sequence[str], **settings: object
) -> list[dict[str, object]]:
    """Time the peer and the forms of ours, each in a process which it may set up as it likes."""
    batch, threads = settings["batch"], settings["threads"]
    with contextlib.ExitStack() as stack:
        asks = {
            form: stack.enter_context(served(partial(_start, **settings), name, form))
            for form in ("mmdet", *forms)
        }
        for ask in asks.values():
            ask("step")  # compilation, in this process alone
        tasks = {form: (ask, "step") for form, ask in asks.items()}
        # what a GPU computes is no time of the process
        clock = threads if device() == "cpu" else 0
        seconds = take_turns(tasks, rounds, clock)
        peaks = {form: ask("peak") for form, ask in asks.items()}
    sides = {
        form: {"images_per_second": rates(found, batch), "peak_mb": peaks[form]}
        for form, found in seconds.items()
    }
    return [
        {"network": name, "form": form, "threads": threads}
        | {"speedup": speedup(seconds["mmdet"], seconds[form])}
        | {"mmdet": sides["mmdet"], "mixdet": sides[form]}
        for form in forms
    ]


def _start(
    name: str, form: str, size: int, batch: int, amp: bool, threads: int
) -> Callable[[object], float]:
    """A process that answers 'peak', its memory in MB, and makes a step for any other request."""
    _, step = ready_to_train(name, form, size, batch, amp, threads)
    data = fixed_batch(batch, size)
    before = _resident("VmRSS")

    def answer(request: object) -> float:
        if request == "peak":
            peak = _resident("VmHWM") - before
            return torch.cuda.max_memory_allocated() / 1e6 if device() == "cuda" else peak
        step(data)
        return 0.0

    return answer


def ready_to_train(
    name: str, form: str, size: int, batch: int, amp: bool, threads: int
) -> tuple[nn.Module, Callable[[dict], None]]:
    """Set this process up to train as a run would, on the GPU where there is one.

    Of several processes, which have met, each takes its part of the gradients' mean.

    Args:
        name: One of `NETWORKS`.
        form: "mmdet" or one of `FORMS`; the weights are the same.
        size: Side of the square images in pixels.
        batch: Images of a batch.
        amp: Mixed precision.
        threads: Number of them to compute with.

    Returns:
        The detector, and what trains it with a batch.
    """
    from mmengine.registry import init_default_scope

    logging.disable(logging.INFO)  # where each weight comes from
    init_default_scope("mmdet")
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True  # as in our configs
    peer, ours = peer_model(name, size), our_model(name, size)
    initialize(peer)
    share_weights(peer, ours)
    model = (peer if form == "mmdet" else ours).to(device()).train()
    if dist.is_initialized():
        model = MMDistributedDataParallel(model)
    wrapper = optim_wrapper(model, amp)
    if form == "CUDA graph":
        capture(model, batch, wrapper.optim_context(model))
    elif form == "compiled":
        for part in (model.backbone, model.neck, model.bbox_head):
            part.compile()
    hook = Hook() if form == "mmdet" else KeepMemoryHook()  # in every run of ours
    hook.before_train(None)

    def step(data: dict) -> None:
        model.train_step(data, wrapper)
        if device() == "cuda":
            torch.cuda.synchronize()
        hook.after_train_iter(SimpleNamespace(optim_wrapper=wrapper), 0)

    return model, step


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
            row["network"] + (f", {row['form']}" if row["form"] != FORMS[0] else ""),
            str(row["threads"]),
            *(spread(row[side]["images_per_second"], 1) for side in ("mmdet", "mixdet")),
            spread(row["speedup"], 2),
            *(f"{row[side]['peak_mb']:.0f}" for side in ("mmdet", "mixdet")),
        ]
        for row in record["networks"]
    ]
    header = ["network", "threads", "timm in mmdet, images/s", "MixDet, images/s", "times faster"]
    return text_table([*header, "timm in mmdet, MB", "MixDet, MB"], rows, markdown)
