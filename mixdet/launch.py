"""Training and testing by a config's path: what `tools/train.py` and `tools/test.py` call.

Nothing that matters for the result lives here, so that mmdet's own tools run the configs too.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import isclass, signature
from json import JSONDecodeError
from pathlib import Path

import mixdet.plugin

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import build_from_cfg
from mmengine.runner import Runner, find_latest_checkpoint
from torch.utils.data import BatchSampler, DataLoader

from mixdet.config.data_paths import check_annotations, check_data
from mixdet.config.read import load_config, require
from mixdet.engine.amp import amp_wrapper_type
from mixdet.errors import MixDetError, did_you_mean, one_line
from mixdet.outputs import writable_file, writable_folder

# What makes an object of a config's dict: an error in there is about the dict
READERS = {
    build_from_cfg.__code__: None,  # whatever it is making
    build_optim_wrapper.__code__: "optim_wrapper",
    DataLoader.__init__.__code__: "the data loader",
    BatchSampler.__init__.__code__: "the data loader",
}
# What mmcv and torch say of data that no check before the run reads, and what we make of it
DATA_FAULTS = (
    (r"failed to load image: ([^{\n]+)", "{}: the image is damaged: repair it or take it out"),
    (r"No such file or directory: '(.+?)'", "{}: no such file, though the annotations name it"),
    (
        "Expected more than 1 value per channel",
        "batch norm on a level of 1x1 needs two images: train_dataloader.batch_size of 2 or "
        "more, and drop_last=True where the last batch holds one",
    ),
)


def train(
    config: str,
    *,
    work_dir: str | None = None,
    resume: str | None = None,
    amp: bool = False,
    launcher: str = "none",
    seed: int | None = None,
    data_root: str | None = None,
    cfg_options: Sequence[str] = (),
    trust_checkpoint: bool = False,
    tensorboard: bool = False,
    auto_scale_lr: bool = False,
) -> None:
    """Train a config.

    Args:
        config: Path of the config.
        work_dir: Where logs and checkpoints go; by default the config's, or `work_dirs/<config>`.
        resume: A checkpoint to go on from, or `auto` for the latest in the work folder (where there
            is none, training starts at the beginning).
        amp: Mixed precision: float16 on a GPU, bfloat16 on a CPU.
        launcher: `none`, `pytorch` or `slurm`.
        seed: Seed of the run; by default the config's, or 0.
        data_root: Another folder for all data sets and metrics.
        cfg_options: `key=value` strings that override the config.
        trust_checkpoint: Allow checkpoints that hold pickled objects: they can run any code.
        tensorboard: Log to TensorBoard too.
        auto_scale_lr: Multiply the learning rate by the run's batch over the recipe's.

    Raises:
        MixDetError: Something that the caller can mend: the message says what.
    """
    cfg = load_config(config, cfg_options, work_dir, data_root)
    _prepare_processes(cfg, launcher)
    require(config, cfg, "model", "train_dataloader", "optim_wrapper", "train_cfg")
    check_data(cfg, ("train_dataloader", "val_dataloader"))
    writable_folder("--work-dir", cfg.work_dir)
    _set_seed(cfg, seed)
    if amp:
        cfg.optim_wrapper.type = amp_wrapper_type(cfg.optim_wrapper.get("type", "OptimWrapper"))
    if tensorboard:
        _add_tensorboard(cfg)
    if auto_scale_lr:
        _scale_lr(cfg)
    if resume is not None:
        cfg.resume = True
        cfg.load_from = _latest(cfg.work_dir) if resume == "auto" else _existing(resume)
        cfg.resume = cfg.load_from is not None
    if trust_checkpoint:
        _trust_checkpoints()
    if cfg.resume:
        _check_resumable(cfg.load_from)
    with _refusals(config, cfg):
        Runner.from_cfg(cfg).train()
    _leave_processes(launcher)


def evaluate(
    config: str,
    checkpoint: str,
    *,
    out: str | None = None,
    sheet: str | None = None,
    work_dir: str | None = None,
    launcher: str = "none",
    data_root: str | None = None,
    cfg_options: Sequence[str] = (),
    trust_checkpoint: bool = False,
) -> dict[str, float]:
    """Evaluate a checkpoint on a config's test set.

    Args:
        config: Path of the config.
        checkpoint: Path or URL of the checkpoint.
        out: Where to write the detections as COCO results JSON; `test_detections.json` in the work
            folder by default.
        sheet: Where to draw true and predicted boxes; `test_sheet.jpg` in the work folder by
            default.
        work_dir: As in `train`.
        launcher: As in `train`.
        data_root: As in `train`.
        cfg_options: As in `train`.
        trust_checkpoint: As in `train`.

    Returns:
        The metrics by name.

    Raises:
        MixDetError: Something that the caller can mend: the message says what.
    """
    cfg = load_config(config, cfg_options, work_dir, data_root)
    _prepare_processes(cfg, launcher)
    cfg.load_from, cfg.resume = _existing(checkpoint), False
    require(config, cfg, "model", "test_dataloader", "test_evaluator", "test_cfg")
    check_data(cfg, ("test_dataloader",))
    writable_folder("--work-dir", cfg.work_dir)
    if out is not None:
        _name_results(cfg, str(writable_file("--out", out)))
    if sheet is not None:
        report = {"type": "ReportHook", "sheet": str(writable_file("--sheet", sheet))}
        cfg.default_hooks = {**(cfg.get("default_hooks") or {}), "report": report}
    if trust_checkpoint:
        _trust_checkpoints()
    with _refusals(config, cfg):
        metrics = Runner.from_cfg(cfg).test()
    _leave_processes(launcher)
    return metrics


def _prepare_processes(cfg: Config, launcher: str) -> None:
    cfg.launcher = launcher
    if launcher == "none":
        return
    if launcher == "slurm" and not torch.cuda.is_available():
        raise MixDetError("--launcher slurm: no GPU is seen; mmengine wants one a process")
    if launcher == "pytorch" and "RANK" not in os.environ:
        raise MixDetError("--launcher pytorch: start it with tools/dist_train.sh, or torchrun")
    if launcher == "slurm" and "SLURM_PROCID" not in os.environ:
        raise MixDetError("--launcher slurm: start it inside a Slurm step (srun)")
    if not torch.cuda.is_available():  # where mmengine asks for a GPU's number, twice
        torch.distributed.init_process_group("gloo")
        cfg.model_wrapper_cfg = {
            "type": "MMDistributedDataParallel",
            "device_ids": None,
            "broadcast_buffers": False,
            "find_unused_parameters": cfg.get("find_unused_parameters", False),
            **(cfg.get("model_wrapper_cfg") or {}),
        }


def _leave_processes(launcher: str) -> None:
    """End what connects the processes: gloo's threads, cut off at exit, now and then abort one."""
    if launcher != "none" and torch.distributed.is_initialized():  # else it is the caller's
        torch.distributed.destroy_process_group()


def _add_tensorboard(cfg: Config) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        raise MixDetError("--tensorboard: not installed; pip install 'mixdet[tensorboard]'")
    visualizer = cfg.setdefault("visualizer", {"type": "DetLocalVisualizer"})
    backends = visualizer.get("vis_backends") or []
    if not any(backend["type"] == "TensorboardVisBackend" for backend in backends):
        visualizer.vis_backends = [*backends, {"type": "TensorboardVisBackend"}]


def _scale_lr(cfg: Config) -> None:
    if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
        raise MixDetError(
            "--auto-scale-lr: the config does not say which batch its learning rate is for: "
            "auto_scale_lr=dict(base_batch_size=...)"
        )
    cfg.auto_scale_lr.enable = True


def _existing(checkpoint: str) -> str:
    if "://" not in checkpoint and not Path(checkpoint).is_file():
        raise MixDetError(f"{checkpoint}: no such checkpoint")
    return checkpoint


def _latest(work_dir: str) -> str | None:
    """The checkpoint that `last_checkpoint` names, also where the folder was moved or copied."""
    named = find_latest_checkpoint(work_dir)
    if not named:
        return None
    beside = Path(work_dir, Path(named).name)
    return str(beside) if beside.is_file() else _existing(named)


def _trust_checkpoints() -> None:
    from mixdet.compat.checkpoint import trust_checkpoints

    trust_checkpoints()


def _name_results(cfg: Config, path: str) -> None:
    evaluator = cfg.test_evaluator
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    ours = [metric for metric in metrics if metric["type"] == "CocoDetectionMetric"]
    if not ours:
        raise MixDetError("--out: test_evaluator has no CocoDetectionMetric to write them")
    for metric in ours:
        metric.results_file = path


def _check_resumable(checkpoint: str) -> None:
    from mixdet.compat.checkpoint import load

    if "://" not in checkpoint and "meta" not in load(checkpoint, map_location="cpu"):
        raise MixDetError(
            f"{checkpoint} holds weights alone, nothing to resume from: start from them with "
            f"--cfg-options load_from={checkpoint}"
        )


def _set_seed(cfg: Config, seed: int | None) -> None:
    randomness = cfg.get("randomness") or {}
    seed = randomness.get("seed", 0) if seed is None else seed
    if seed is not None and not (isinstance(seed, int) and 0 <= seed < 2**32):  # NumPy's limits
        raise MixDetError(f"--seed {seed}: give a whole number from 0 to {2**32 - 1}")
    cfg.randomness = {**randomness, "seed": seed}


def _hint(error: Exception, made: object) -> str:
    """Which argument may be meant by one that a class, or the base that it hands it to, refuses."""
    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    classes = made.__mro__ if isclass(made) else ()
    names = [each.__name__ for each in classes]
    if not found or found[1] not in names:
        return ""
    known = {
        name
        for each in classes[: names.index(found[1]) + 1]
        for name, parameter in signature(each.__init__).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    hint = did_you_mean(found[2], known - {"self", found[2]})
    return f"; {hint}" if hint else ""


@contextmanager
def _refusals(config: str, cfg: Config) -> Iterator[None]:
    """Turn what a run finds in a config or its data into one line."""
    try:
        yield
    except MixDetError as error:
        *_, last = str(error).strip().splitlines()
        if last == str(error):
            raise
        raise MixDetError(last.partition(": ")[2]) from error  # a worker's, after its traceback
    except (
        *(AssertionError, AttributeError, FileNotFoundError, KeyError, NotImplementedError),
        *(RuntimeError, TypeError, ValueError, ZeroDivisionError),
    ) as error:
        if isinstance(error, JSONDecodeError):
            check_annotations(cfg)  # which of the files it is
        for pattern, words in DATA_FAULTS:  # a worker's error comes with its traceback as text
            found = re.search(pattern, str(error))
            if found:
                raise MixDetError(words.format(*found.groups())) from error
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        readers = [frame for frame in frames if frame.f_code in READERS]
        if readers:
            kind = READERS[readers[-1].f_code] or readers[-1].f_locals.get("obj_type")
            words = one_line(error).partition(". ")[0] if str(error) else "it refuses its arguments"
            hint = _hint(error, readers[-1].f_locals.get("obj_cls"))
            raise MixDetError(f"{config}: {kind}: {words}{hint}") from error
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise MixDetError(
            f"{error.filename or cfg.work_dir}: {error.strerror}; the checkpoints that are there "
            "are whole: make room, then --resume goes on"
        ) from error
