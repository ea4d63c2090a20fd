"""Train and test the detector of a config, for `tools/train.py` and `tools/test.py`.

This module adds options, checks and clearer error messages to mmengine's `Runner`. The configs do
not depend on this module, so mmdet's own tools can run them too.
"""

from __future__ import annotations

import errno
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

from mixdet.compat.checkpoint import load, trust_checkpoints
from mixdet.config.data_paths import check_annotations, check_data
from mixdet.config.read import load_config, require
from mixdet.data_check.check_config_data import check_before_runner
from mixdet.engine.amp import amp_wrapper_type
from mixdet.engine.batch_size import scale_lr_by_accumulated_batches
from mixdet.engine.evaluation_options import (
    augment_test,
    set_drawings,
    set_report,
    set_results_file,
)
from mixdet.engine.trackers import add_trackers
from mixdet.engine.training_length import (
    TrainingLength,
    announced_length,
    check_minutes,
    length_for,
)
from mixdet.errors import MixDetError, did_you_mean, one_line
from mixdet.file_kinds import require_checkpoint
from mixdet.outputs import writable_file, writable_folder

__all__ = ["choose_length", "evaluate", "train"]

# These functions build an object from a part of the config. The values name that part. An error
# that is raised inside one of these functions is a fault of the config.
BUILDERS = {
    build_from_cfg.__code__: None,  # the name is in its variable `obj_type`
    build_optim_wrapper.__code__: "optim_wrapper",
    DataLoader.__init__.__code__: "the data loader",
    BatchSampler.__init__.__code__: "the data loader",
}
# Patterns of messages of mmcv and torch, and the messages that replace them. The checks before the
# run cannot find these faults, since they neither read images nor run the network.
DATA_ERRORS = (
    (r"failed to load image: ([^{\n]+)", "{}: the image is damaged: repair it or leave it out"),
    (r"No such file or directory: '(.+?)'", "{}: no such file, though the annotations name it"),
    (
        "Expected more than 1 value per channel",
        "batch norm on a 1x1 feature map needs two images: set train_dataloader.batch_size to 2 or "
        "more, and train_dataloader.drop_last=True if the last batch has one image",
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
    tracker: Sequence[str] = (),
    auto_scale_lr: bool = False,
    size: int | tuple[int, int] | None = None,
    minutes: float | None = None,
    length: TrainingLength | None = None,
) -> None:
    """Train a config.

    Args:
        config: Path of the config.
        work_dir: Folder for logs and checkpoints. By default it is the `work_dir` of the config, or
            `work_dirs/<config>`.
        resume: A checkpoint to resume from, or `auto` for the latest one in the work folder. If the
            folder has none, `auto` trains from the beginning.
        amp: Train in mixed precision: float16 on a GPU, bfloat16 on a CPU.
        launcher: `none`, `pytorch` or `slurm`.
        seed: Seed of the run. By default it is the seed in the config, or 0.
        data_root: Folder to read all images and annotations from, instead of the `data_root` in the
            config. Both folders must have the same layout.
        cfg_options: `key=value` strings that override the config.
        trust_checkpoint: Let mmengine load checkpoints with pickled objects, which can run any
            code. The permission lasts until the process ends.
        tracker: Names of trackers to log to: `mlflow`, `tensorboard`, `wandb`.
        auto_scale_lr: Scale the learning rate to the total batch size of the run. The factor is
            this batch size divided by `auto_scale_lr.base_batch_size` of the config.
        size: Size of the network's input in pixels: (width, height), or the side of a square. By
            default it is the size in the config.
        minutes: Train as many epochs as fit into this number of minutes, validation included,
            instead of `train_cfg.max_epochs`. The cost of an epoch is measured first. The minutes
            do not include this measurement. A resumed run keeps its number of epochs.
        length: The length of the training, from `choose_length`, instead of `minutes`.

    Raises:
        MixDetError: The config, an option, the data or the checkpoint cannot be used.
    """
    if minutes is not None:
        check_minutes(minutes, cfg_options, launcher)
    cfg = load_config(config, cfg_options, work_dir, data_root, size)
    _prepare_processes(cfg, launcher)
    _prepare_training(config, cfg)
    _set_seed(cfg, seed)
    if amp:
        cfg.optim_wrapper.type = amp_wrapper_type(cfg.optim_wrapper.get("type", "OptimWrapper"))
    add_trackers(cfg, tracker)
    if auto_scale_lr:
        _scale_lr(cfg)
    resumed_from = None
    if resume is not None:
        resumed_from = _latest(cfg.work_dir) if resume == "auto" else _existing(resume)
        cfg.resume = resumed_from is not None
    if resumed_from:
        cfg.load_from = resumed_from
    elif cfg.get("load_from"):
        cfg.load_from = _existing(cfg.load_from)
    if trust_checkpoint:
        trust_checkpoints()
    if cfg.get("resume") and cfg.get("load_from"):
        _check_resumable(cfg.load_from, trust_checkpoint)
    with _explained_errors(config, cfg):
        if minutes is not None:
            resumed = (cfg.load_from or _latest(cfg.work_dir)) if cfg.get("resume") else None
            length = announced_length(cfg, minutes, resumed, trust_checkpoint)
        if length is not None:
            length.apply(cfg)
        runner = Runner.from_cfg(cfg)
        scale_lr_by_accumulated_batches(runner)
        runner.train()
    _close_process_group(launcher)


def choose_length(
    config: str,
    minutes: float,
    work_dir: str,
    *,
    data_root: str | None = None,
    cfg_options: Sequence[str] = (),
    started: float = 0.0,
) -> TrainingLength:
    """Measure the costs of a training, and return the length that takes the given minutes.

    Args:
        config: As in `train`.
        minutes: As in `train`.
        work_dir: A folder for files that are deleted at the end.
        data_root: As in `train`.
        cfg_options: As in `train`.
        started: Seconds that a process of a training takes before it calls `train`. The minutes
            include them.

    Raises:
        MixDetError: The config, an option or the data cannot be used.
    """
    check_minutes(minutes, cfg_options)
    cfg = load_config(config, cfg_options, work_dir, data_root)
    _prepare_training(config, cfg)
    _set_seed(cfg, None)
    with _explained_errors(config, cfg):
        return length_for(cfg, minutes, started=started)


def evaluate(
    config: str,
    checkpoint: str,
    *,
    out: str | None = None,
    sheet: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
    work_dir: str | None = None,
    launcher: str = "none",
    data_root: str | None = None,
    cfg_options: Sequence[str] = (),
    trust_checkpoint: bool = False,
    size: int | tuple[int, int] | None = None,
) -> dict[str, float]:
    """Evaluate a checkpoint on a config's test set.

    Args:
        config: Path of the config.
        checkpoint: Path or URL of the checkpoint.
        out: File for the detections. A `.pkl` file gets the form that mmdet's tools read. Any other
            file gets COCO results JSON, which by default is `test_detections.json` in the work
            folder.
        sheet: File for a drawing of true and predicted boxes. By default it is `test_sheet.jpg` in
            the work folder.
        show_dir: Folder for all images, drawn with true and predicted boxes. By default none are
            drawn.
        tta: Test-time augmentation: see `mixdet.engine.evaluation_options.augment_test`.
        work_dir: As in `train`.
        launcher: As in `train`.
        data_root: As in `train`.
        cfg_options: As in `train`.
        trust_checkpoint: As in `train`.
        size: As in `train`. It may differ from the size that the checkpoint was trained with.

    Returns:
        The metrics by name.

    Raises:
        MixDetError: The config, an option, the data or the checkpoint cannot be used.
    """
    cfg = load_config(config, cfg_options, work_dir, data_root, size)
    _prepare_processes(cfg, launcher)
    _check_test_options(cfg, cfg_options)
    cfg.load_from, cfg.resume = _existing(checkpoint), False
    require(config, cfg, "model", "test_dataloader", "test_evaluator", "test_cfg")
    check_data(cfg, ("test_dataloader",))
    check_before_runner(cfg, ("test_dataloader",))
    writable_folder("--work-dir", cfg.work_dir)
    if out is not None:
        set_results_file(cfg, out)
    if sheet is not None:
        set_report(cfg, sheet=str(writable_file("--sheet", sheet)))
    if show_dir is not None:
        set_drawings(cfg, show_dir)
    warning = augment_test(cfg) if tta else ""
    if trust_checkpoint:
        trust_checkpoints()
    with _explained_errors(config, cfg):
        runner = Runner.from_cfg(cfg)
        if warning:
            runner.logger.warning(warning)
        metrics = runner.test()
    _close_process_group(launcher)
    return metrics


def _prepare_training(config: str, cfg: Config) -> None:
    """Check the config, the data and the work folder of a training."""
    require(config, cfg, "model", "train_dataloader", "optim_wrapper", "train_cfg")
    check_data(cfg, ("train_dataloader", "val_dataloader"))
    check_before_runner(cfg, ("train_dataloader", "val_dataloader"))
    writable_folder("--work-dir", cfg.work_dir)


def _prepare_processes(cfg: Config, launcher: str) -> None:
    cfg.launcher = launcher
    if launcher == "none":
        return
    if launcher == "slurm" and not torch.cuda.is_available():
        raise MixDetError(
            "--launcher slurm: mmengine needs a GPU for each process, but torch sees none here: "
            "request GPUs from Slurm"
        )
    if launcher == "pytorch" and "RANK" not in os.environ:
        raise MixDetError(
            "--launcher pytorch: RANK is not set: start with tools/dist_train.sh or torchrun"
        )
    if launcher == "slurm" and "SLURM_PROCID" not in os.environ:
        raise MixDetError("--launcher slurm: SLURM_PROCID is not set: start with srun")
    # mmengine's code for the process group and the model wrapper needs a GPU, so set up both here
    if not torch.cuda.is_available():
        torch.distributed.init_process_group("gloo")
        cfg.model_wrapper_cfg = {
            "type": "MMDistributedDataParallel",
            "device_ids": None,
            "broadcast_buffers": False,
            "find_unused_parameters": cfg.get("find_unused_parameters", False),
            **(cfg.get("model_wrapper_cfg") or {}),
        }


def _close_process_group(launcher: str) -> None:
    """Close the process group of this run.

    If it stayed open, gloo's threads would sometimes abort the process at exit. With the launcher
    `none`, an open group belongs to the caller and stays open.
    """
    if launcher != "none" and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _scale_lr(cfg: Config) -> None:
    if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
        raise MixDetError(
            "--auto-scale-lr: the config does not say which batch size its learning rate is for: "
            "add auto_scale_lr=dict(base_batch_size=...) to it"
        )
    cfg.auto_scale_lr.enable = True


def _check_test_options(cfg: Config, options: Sequence[str]) -> None:
    """Refuse an option that sets validation only. The message names the option for the test."""
    keys = {option.partition("=")[0] for option in options}
    for key in sorted(keys):
        for part in ("dataloader", "evaluator", "cfg"):
            instead = key.replace(f"val_{part}", f"test_{part}", 1)
            same = key.startswith(f"val_{part}") and f"test_{part}" in cfg
            if same and not any(other.startswith(f"test_{part}") for other in keys):
                raise MixDetError(
                    f"--cfg-options {key} has no effect on a test: set {instead} instead"
                )


def _existing(checkpoint: str) -> str:
    """Return the path of a checkpoint, which must exist. A URL is returned unchanged."""
    if ":" in checkpoint:  # such as https://... or s3:bucket/epoch_12.pth
        return checkpoint
    path = Path(checkpoint).expanduser()
    require_checkpoint(path)
    return str(path)


def _latest(work_dir: str) -> str | None:
    """Return the checkpoint that the file `last_checkpoint` names.

    The path in `last_checkpoint` is wrong if the work folder was moved. A file of the same name in
    the work folder is therefore preferred to this path.
    """
    latest = find_latest_checkpoint(work_dir)
    if not latest:
        return None
    in_folder = Path(work_dir, Path(latest).name)
    return str(in_folder) if in_folder.is_file() else _existing(latest)


def _check_resumable(checkpoint: str, trust: bool) -> None:
    if "://" not in checkpoint and "meta" not in load(checkpoint, "cpu", trust):
        raise MixDetError(
            f"--resume {checkpoint}: this file holds only weights, so no run can be resumed: start "
            f"a run from the weights with --cfg-options load_from={checkpoint}"
        )


def _set_seed(cfg: Config, seed: int | None) -> None:
    randomness = cfg.get("randomness") or {}
    seed = randomness.get("seed", 0) if seed is None else seed
    if seed is not None and not (isinstance(seed, int) and 0 <= seed < 2**32):  # NumPy's limits
        raise MixDetError(f"--seed {seed}: give a whole number from 0 to {2**32 - 1}")
    cfg.randomness = {**randomness, "seed": seed}


def _argument_hint(error: Exception, target: object) -> str:
    """Suggest the right name of an argument that a class does not accept.

    Args:
        error: The error that the class or one of its bases raised.
        target: The class that was to be built from the config, or None.

    Returns:
        The suggestion, to be appended to a message; empty if there is none.
    """
    match = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    classes = target.__mro__ if isclass(target) else ()
    names = [base.__name__ for base in classes]
    if not match or match[1] not in names:
        return ""
    # A class passes arguments on to its bases, up to the base that raised the error
    known = {
        name
        for base in classes[: names.index(match[1]) + 1]
        for name, parameter in signature(base.__init__).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    hint = did_you_mean(match[2], known - {"self", match[2]})
    return f"; {hint}" if hint else ""


@contextmanager
def _explained_errors(config: str, cfg: Config) -> Iterator[None]:
    """Turn an error about the config, the data or the disk into a `MixDetError` of one line."""
    try:
        yield
    except MixDetError as error:
        *_, last = str(error).strip().splitlines()
        if last == str(error):
            raise
        # A worker of a data loader sends its error as a traceback. The last line has the message.
        raise MixDetError(last.partition(": ")[2]) from error
    except (
        *(AssertionError, AttributeError, FileNotFoundError, KeyError, NotImplementedError),
        *(RuntimeError, TypeError, ValueError, ZeroDivisionError),
    ) as error:
        if isinstance(error, JSONDecodeError):
            check_annotations(cfg)  # raises an error that names the damaged file
        for pattern, message in DATA_ERRORS:
            match = re.search(pattern, str(error))
            if match:
                raise MixDetError(message.format(*match.groups())) from error
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        builders = [frame for frame in frames if frame.f_code in BUILDERS]
        if builders:
            innermost = builders[-1]
            part = BUILDERS[innermost.f_code] or innermost.f_locals.get("obj_type")
            text = one_line(error).partition(". ")[0] if str(error) else "it refuses its arguments"
            hint = _argument_hint(error, innermost.f_locals.get("obj_cls"))
            raise MixDetError(f"{config}: {part}: {text}{hint}") from error
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise MixDetError(
            f"{error.filename or cfg.work_dir}: {error.strerror} (the earlier checkpoints are not "
            "damaged): free some space, then resume with --resume"
        ) from error
