"""`train`: time a training step of MixDet against mmdet's SSDLite with timm's backbones."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace

import mixdet.plugin

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from benchmarks.networks import NETWORKS, check_known, our_model, peer_model
from benchmarks.processes import process_memory, remote_function, time_remote_in_turns
from benchmarks.timing import format_range, items_per_second, speedup
from benchmarks.weights import copy_weights, initialize
from mixdet.engine.amp import amp_wrapper_type
from mixdet.engine.hooks.cuda_graph_hook import capture
from mixdet.engine.hooks.keep_memory_hook import KeepMemoryHook
from mixdet.machine import machine_record
from mixdet.visual.tables import text_table
from tests.synthetic import random_batch

TRAINING_FORMS = ("eager", "CUDA graph", "compiled")  # for MixDet; the peer always trains eagerly


def measure(
    rounds: int = 5,
    size: int = 320,
    batch: int = 8,
    amp: bool = False,
    threads: Sequence[int] = (1, 2),
    networks: Sequence[str] = tuple(NETWORKS),
    forms: Sequence[str] = TRAINING_FORMS[:1],
) -> dict[str, object]:
    """Time training steps on one batch: normalization, forward, losses, backward, SGD.

    Each form runs in its own process. All forms start from the same weights, and compute on the GPU
    if there is one.

    Args:
        rounds: Number of timed rounds.
        size: Side of the square images in pixels.
        batch: Images per step.
        amp: Use mixed precision on both sides: float16 on a GPU, bfloat16 on a CPU.
        threads: Numbers of threads to time with.
        networks: Keys of `NETWORKS`.
        forms: Forms of MixDet's step, from `TRAINING_FORMS`. 'CUDA graph' captures the step as
            `CudaGraphHook` does. 'compiled' applies `torch.compile` to backbone, neck and head.

    Returns:
        machine, settings and networks, with images per second and the peak memory in MB.

    Raises:
        MixDetError: A name is unknown, or `forms` has 'CUDA graph' and there is no GPU.
    """
    check_known("--networks", networks, NETWORKS)
    check_known("--forms", forms, [form for form in TRAINING_FORMS if runs_here(form)])
    measured_on = machine_record()
    settings = {"size": size, "batch": batch, "amp": amp}
    rows = [
        row
        for number in threads
        for name in networks
        for row in _measure_network(name, rounds, forms, threads=number, **settings)
    ]
    settings |= {"rounds": rounds, "device": device()}
    return {"kind": "train", "machine": measured_on, "settings": settings, "networks": rows}


def device() -> str:
    """Return the device that trainings compute on: 'cuda' or 'cpu'."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def runs_here(form: str) -> bool:
    """Return whether this machine can run a form of the training step."""
    return device() == "cuda" or form != "CUDA graph"


def _measure_network(
    name: str, rounds: int, forms: Sequence[str], **settings: object
) -> list[dict[str, object]]:
    """Time the peer and the forms of MixDet's step in turns."""
    batch, threads = settings["batch"], settings["threads"]
    with contextlib.ExitStack() as stack:
        functions = {
            form: stack.enter_context(
                remote_function(partial(_start_training, **settings), name, form)
            )
            for form in ("mmdet", *forms)
        }
        for function in functions.values():
            function("step")  # may compile, so the processes make this untimed step in turns
        tasks = {form: (function, "step") for form, function in functions.items()}
        # On a GPU, 0 selects wall time, because CPU time leaves out the time of the GPU.
        seconds = time_remote_in_turns(tasks, rounds, threads if device() == "cpu" else 0)
        peaks = {form: function("peak") for form, function in functions.items()}
    sides = {
        form: {"images_per_second": items_per_second(values, batch), "peak_mb": peaks[form]}
        for form, values in seconds.items()
    }
    return [
        {"network": name, "form": form, "threads": threads}
        | {"speedup": speedup(seconds["mmdet"], seconds[form])}
        | {"mmdet": sides["mmdet"], "mixdet": sides[form]}
        for form in forms
    ]


def _start_training(
    name: str, form: str, size: int, batch: int, amp: bool, threads: int
) -> Callable[[str], float]:
    """Return a function that trains a step ('step') or returns the peak memory in MB ('peak')."""
    _, step = prepare_training(name, form, size, batch, amp, threads)
    data = random_batch(batch, size)
    memory_before = process_memory("VmRSS")

    def answer(request: str) -> float:
        if request == "peak":
            if device() == "cuda":
                return torch.cuda.max_memory_allocated() / 1e6
            return process_memory("VmHWM") - memory_before
        step(data)
        return 0.0

    return answer


def prepare_training(
    name: str, form: str, size: int, batch: int, amp: bool, threads: int
) -> tuple[nn.Module, Callable[[dict], None]]:
    """Set up this process to train as `tools/train.py` does, on the GPU if there is one.

    If `torch.distributed` is initialized, each step averages the gradients of all processes.

    Args:
        name: A key of `NETWORKS`.
        form: 'mmdet' for the peer, or one of `TRAINING_FORMS`. All start from the same weights.
        size: Side of the square images in pixels.
        batch: Images per batch.
        amp: Use mixed precision.
        threads: Number of threads to compute with.

    Returns:
        The detector, and a function that trains it with a batch.
    """
    logging.disable(logging.INFO)  # mmengine logs the origin of every weight
    init_default_scope("mmdet")
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True  # as in our configs
    peer, ours = peer_model(name, size), our_model(name, size)
    initialize(peer)
    copy_weights(peer, ours)
    model = (peer if form == "mmdet" else ours).to(device()).train()
    if dist.is_initialized():
        model = MMDistributedDataParallel(model)
    optim_wrapper = sgd_wrapper(model, amp)
    if form == "CUDA graph":
        capture(model, batch, optim_wrapper.optim_context(model))
    elif form == "compiled":
        for part in (model.backbone, model.neck, model.bbox_head):
            part.compile()
    hook = Hook() if form == "mmdet" else KeepMemoryHook()  # MixDet's configs have this hook
    hook.before_train(None)

    def step(data: dict) -> None:
        model.train_step(data, optim_wrapper)
        if device() == "cuda":
            torch.cuda.synchronize()
        hook.after_train_iter(SimpleNamespace(optim_wrapper=optim_wrapper), 0)

    return model, step


def sgd_wrapper(model: nn.Module, amp: bool) -> OptimWrapper:
    """Build SGD with the momentum and weight decay of `coco_600e.py`."""
    wrapper_type = amp_wrapper_type("OptimWrapper") if amp else "OptimWrapper"
    # On noise images, the loss would diverge at a usual learning rate.
    optimizer = dict(type="SGD", lr=1e-6, momentum=0.9, weight_decay=4e-5)
    return build_optim_wrapper(model, dict(type=wrapper_type, optimizer=optimizer))


def table(record: dict[str, object], markdown: bool = False) -> str:
    """Lay out the record of `measure` as text."""
    rows = [
        [
            row["network"] + (f", {row['form']}" if row["form"] != TRAINING_FORMS[0] else ""),
            str(row["threads"]),
            *(format_range(row[side]["images_per_second"], 1) for side in ("mmdet", "mixdet")),
            format_range(row["speedup"], 2),
            *(f"{row[side]['peak_mb']:.0f}" for side in ("mmdet", "mixdet")),
        ]
        for row in record["networks"]
    ]
    header = ["network", "threads", "timm in mmdet, images/s", "MixDet, images/s", "times faster"]
    return text_table([*header, "timm in mmdet, MB", "MixDet, MB"], rows, markdown)
