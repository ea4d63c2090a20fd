"""Ctrl-C that leaves a checkpoint to resume from."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce, barrier, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mixdet.engine.file_backend import write_last_checkpoint

FILENAME = "interrupted.pth"
NOTICE = b"\nCtrl-C: stopping as soon as a checkpoint is written; again: stopping at once\n"


@HOOKS.register_module()
class InterruptHook(Hook):
    """On SIGINT finish the iteration, write a checkpoint, say how to go on, end with code 130.

    The checkpoint is `interrupted.pth` beside the others; `last_checkpoint` names it. The last
    iteration of an epoch takes the epoch's end with it, and a validation that is running is
    finished (while it runs, the model may hold averaged weights). A second SIGINT does what it did
    before training: by default it stops at once. With several processes, one that is signalled
    stops all.

    Together with `ResumableTrainLoop`, `SeededSampler` and `SeedSample` the resumed run ends with
    the weights of a run that was never stopped.
    """

    priority = "LOWEST"  # after the schedulers' step and the regular checkpoint

    def __init__(self) -> None:
        self._signals = 0
        self._previous = None

    def before_train(self, runner: Runner) -> None:
        """Take the signal over, where Python allows it: in the main thread."""
        if threading.current_thread() is threading.main_thread():
            process = os.getpid()

            def request(number, frame) -> None:
                if os.getpid() != process:
                    return  # data loading workers inherit the handler: they go on
                self._signals += 1
                if self._signals == 1:
                    os.write(2, NOTICE)  # print is not safe in a signal handler
                else:
                    self._restore()
                    signal.raise_signal(number)

            self._previous = signal.signal(signal.SIGINT, request)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Stop here, unless the epoch ends or gradients are still being accumulated."""
        if not self._anybody_requested():
            return
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        ends_epoch = by_epoch and batch_idx + 1 == len(runner.train_dataloader)
        wrapper = runner.optim_wrapper
        accumulates = hasattr(wrapper, "should_update") and not wrapper.should_update()
        if not (ends_epoch or accumulates):
            self._stop(runner, runner.epoch, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop between training and validation."""
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if by_epoch and self._anybody_requested():
            self._stop(runner, runner.epoch + 1, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Stop after the validation in which the signal came."""
        if self._anybody_requested():
            self._stop(runner, runner.epoch, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Give the signal back."""
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _anybody_requested(self) -> bool:
        if get_world_size() == 1:
            return self._signals > 0
        flag = torch.tensor(self._signals)
        all_reduce(flag, "max")
        return bool(flag)

    def _stop(self, runner: Runner, epoch: int, iteration: int) -> None:
        """Write the checkpoint and end the process.

        Args:
            runner: The runner.
            epoch: Whole epochs done.
            iteration: Iterations done.
        """
        hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        folder = hook.out_dir if hook else runner.work_dir
        path = Path(folder, FILENAME)
        try:
            runner.save_checkpoint(
                folder,
                FILENAME,
                meta={"epoch": epoch, "iter": iteration},
                backend_args=hook.backend_args if hook else {"backend": "atomic"},
            )
        except Exception as error:
            if self._signals > 1:  # mmengine formats the config under a bare `except`
                raise KeyboardInterrupt from error
            raise
        if runner.rank == 0:
            write_last_checkpoint(runner.work_dir, path)
            runner.logger.info(
                f"Stopped after {iteration} of {runner.max_iters} iterations; the checkpoint is "
                f"{path}. The same command with --resume goes on from there."
            )
        barrier()  # a launcher kills all processes as soon as one has ended
        self._restore()
        raise SystemExit(130)
