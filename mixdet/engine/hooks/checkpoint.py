"""Checkpoints without a moment in which none is whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mixdet.engine.file_backend import write_last_checkpoint
from mixdet.errors import MixDetError


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's `CheckpointHook` that survives being killed at any time.

    Checkpoints and `last_checkpoint` are written to the side and renamed, and an old checkpoint is
    removed after the new one is there, not before (mmengine removes the best one before, and with
    `max_keep_ckpts=1` the last one too). Only files in the run's own folder are removed: a run that
    resumes from a copy of a folder, or from another's checkpoint, leaves the other folder alone.

    Args:
        backend_args: Of mmengine's file backends; the default writes to the side and renames.
        **kwargs: Of `CheckpointHook`.
    """

    def __init__(self, *args, backend_args: dict | None = None, **kwargs) -> None:
        super().__init__(*args, backend_args=backend_args or {"backend": "atomic"}, **kwargs)

    def before_train(self, runner: Runner) -> None:
        """As mmengine; of a copied or moved folder the best checkpoint is its own."""
        super().before_train(runner)
        self._check_save_best(runner)
        for name, path in self._best().items():
            if path and self.file_backend.isfile(self._here(path)):
                self._set_best({name: self._here(path)})
                runner.message_hub.update_info(name, self._here(path))

    def _check_save_best(self, runner: Runner) -> None:
        """Refuse a metric that the first validation would not find."""
        metrics = runner.val_evaluator.metrics if self.save_best and runner.val_loop else []
        if not all(hasattr(metric, "names") for metric in metrics):  # others publish none
            return
        known = [f"{metric.prefix}/{name}" for metric in metrics for name in metric.names]
        for name in self.save_best if known else ():
            if name not in ("auto", *known):
                raise MixDetError(
                    f"default_hooks.checkpoint.save_best={name!r}: validation gives no such "
                    f"number: use one of {', '.join(known)}"
                )

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        before = self._best()
        self._set_best(dict.fromkeys(before))  # so that mmengine removes nothing
        super()._save_best_checkpoint(runner, metrics)
        for name, new in self._best().items():
            old = before[name]
            if new is None:  # it was not better
                self._set_best({name: old})
            elif old and self._here(old) != new:
                self._remove([self._here(old)])

    def _best(self) -> dict[str, str | None]:
        """Paths of the best checkpoints, by the names that the message hub has for them."""
        if not self.save_best:
            return {}
        if len(self.key_indicators) == 1:
            return {"best_ckpt": self.best_ckpt_path}
        return {f"best_ckpt_{metric}": path for metric, path in self.best_ckpt_path_dict.items()}

    def _set_best(self, paths: dict[str, str | None]) -> None:
        for name, path in paths.items():
            if name == "best_ckpt":
                self.best_ckpt_path = path
            else:
                self.best_ckpt_path_dict[name.removeprefix("best_ckpt_")] = path

    def _here(self, path: str) -> str:
        return self.file_backend.join_path(self.out_dir, Path(path).name)

    def _remove(self, paths: Iterable[str]) -> None:
        if is_main_process():
            for path in paths:
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = self._keep(runner, step)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_last_checkpoint(runner.work_dir, self.last_ckpt)
        self._remove(outdated)

    def _keep(self, runner: Runner, step: int) -> list[str]:
        """Note a step among those to keep; return the checkpoints that have to go for it."""
        if self.max_keep_ckpts <= 0:
            return []
        steps = [kept for kept in self.keep_ckpt_ids if kept != step] + [step]
        kept, dropped = steps[-self.max_keep_ckpts :], steps[: -self.max_keep_ckpts]
        self.keep_ckpt_ids.clear()
        self.keep_ckpt_ids.extend(kept)
        runner.message_hub.update_info("keep_ckpt_ids", kept)
        paths = map(self.filename_tmpl.format, dropped)
        return [self.file_backend.join_path(self.out_dir, path) for path in paths]
