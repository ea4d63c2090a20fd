"""On Ctrl-C, write a checkpoint to resume from."""

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
NOTICE = b"\nThe run stops once a checkpoint is written. Press Ctrl-C again to stop at once.\n"


@HOOKS.register_module()
class InterruptHook(Hook):
    """On SIGINT, finish the iteration, write a checkpoint and exit with code 130.

    The checkpoint is `interrupted.pth` in the folder of the other checkpoints, and
    `last_checkpoint` names it. After the last iteration of an epoch, the other hooks for the end
    of the epoch run first. A running validation is finished, since the model may contain averaged
    weights until the validation ends. A second SIGINT calls the handler that was installed before
    training. Python's default handler stops the process at once. If one of several processes gets
    the signal, all of them stop.

    With `ResumableTrainLoop`, `SeededSampler` and `SeedSample` the resumed run ends with the same
    weights as a run that was never stopped.
    """

    priority = "LOWEST"  # after the schedulers' step and the regular checkpoint

    def __init__(self) -> None:
        self._signals = 0
        self._previous = None

    def before_train(self, runner: Runner) -> None:
        """Install the signal handler. Python allows this in the main thread only."""
        if threading.current_thread() is threading.main_thread():
            process = os.getpid()

            def request_stop(number, frame) -> None:
                if os.getpid() != process:
                    return  # data loading workers inherit the handler, but must go on
                self._signals += 1
                if self._signals == 1:
                    os.write(2, NOTICE)  # print is not safe in a signal handler
                else:
                    self._restore()
                    signal.raise_signal(number)

            self._previous = signal.signal(signal.SIGINT, request_stop)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Stop if requested, unless the epoch ends or gradients are still being accumulated."""
        if not self._any_process_requested():
            return
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        ends_epoch = by_epoch and batch_idx + 1 == len(runner.train_dataloader)
        wrapper = runner.optim_wrapper
        accumulates = hasattr(wrapper, "should_update") and not wrapper.should_update()
        if not (ends_epoch or accumulates):
            self._stop(runner, runner.epoch, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop between training and validation, if requested."""
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if by_epoch and self._any_process_requested():
            self._stop(runner, runner.epoch + 1, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Stop after validation, if the signal came while it was running."""
        if self._any_process_requested():
            self._stop(runner, runner.epoch, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Restore the previous signal handler."""
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _any_process_requested(self) -> bool:
        if get_world_size() == 1:
            return self._signals > 0
        flag = torch.tensor(self._signals)
        all_reduce(flag, "max")
        return bool(flag)

    def _stop(self, runner: Runner, epoch: int, iteration: int) -> None:
        """Write the checkpoint and end the process.

        Args:
            runner: The runner.
            epoch: Number of complete epochs.
            iteration: Number of complete iterations.
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
            # mmengine's bare `except` may have replaced the KeyboardInterrupt of a second SIGINT.
            if self._signals > 1:
                raise KeyboardInterrupt from error
            raise
        if runner.rank == 0:
            write_last_checkpoint(runner.work_dir, path)
            runner.logger.info(
                f"Stopped after {iteration} of {runner.max_iters} iterations; the checkpoint is "
                f"{path}. To go on from there, run the same command with --resume."
            )
        barrier()  # wait here, since a launcher kills all processes as soon as one of them ends
        self._restore()
        raise SystemExit(130)
