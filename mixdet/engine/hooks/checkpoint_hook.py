"""A checkpoint hook that always leaves a complete checkpoint on disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mixdet.engine.file_backend import write_last_checkpoint


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's `CheckpointHook`, made safe for a run that is killed at any time.

    Checkpoints and `last_checkpoint` are written to a temporary file, which is then renamed. An
    old checkpoint is removed only after the new one is written. (mmengine first removes the old
    best checkpoint, and then writes the new one. With `max_keep_ckpts=1` it does the same to the
    last checkpoint.) Only files in the folder of the run are removed. A run that resumes from
    another folder changes nothing in that folder.

    Args:
        backend_args: Arguments of mmengine's file backend. With None, `AtomicBackend` is used,
            which never leaves a partly written file.
        **kwargs: Arguments of `CheckpointHook`.
    """

    _default_greater_keys = (*CheckpointHook._default_greater_keys, "AR_")

    def __init__(self, *args, backend_args: dict | None = None, **kwargs) -> None:
        super().__init__(*args, backend_args=backend_args or {"backend": "atomic"}, **kwargs)

    def before_train(self, runner: Runner) -> None:
        """Find the best checkpoint again if the work folder was moved."""
        super().before_train(runner)
        for name, path in self._best_paths().items():
            if path and self.file_backend.isfile(self._path_in_out_dir(path)):
                self._set_best_paths({name: self._path_in_out_dir(path)})
                runner.message_hub.update_info(name, self._path_in_out_dir(path))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        old_paths = self._best_paths()
        self._set_best_paths(dict.fromkeys(old_paths))  # so that mmengine removes nothing
        super()._save_best_checkpoint(runner, metrics)
        for name, new in self._best_paths().items():
            old = old_paths[name]
            if new is None:  # the metric did not improve
                self._set_best_paths({name: old})
            elif old and self._path_in_out_dir(old) != new:
                self._remove([self._path_in_out_dir(old)])

    def _best_paths(self) -> dict[str, str | None]:
        """Return the paths of the best checkpoints, by their keys in the message hub."""
        if not self.save_best:
            return {}
        if len(self.key_indicators) == 1:
            return {"best_ckpt": self.best_ckpt_path}
        return {f"best_ckpt_{metric}": path for metric, path in self.best_ckpt_path_dict.items()}

    def _set_best_paths(self, paths: dict[str, str | None]) -> None:
        for name, path in paths.items():
            if name == "best_ckpt":
                self.best_ckpt_path = path
            else:
                self.best_ckpt_path_dict[name.removeprefix("best_ckpt_")] = path

    def _path_in_out_dir(self, path: str) -> str:
        return self.file_backend.join_path(self.out_dir, Path(path).name)

    def _remove(self, paths: Iterable[str]) -> None:
        if is_main_process():
            for path in paths:
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = self._outdated_paths(runner, step)
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

    def _outdated_paths(self, runner: Runner, step: int) -> list[str]:
        """Add a step to `keep_ckpt_ids`. Return the checkpoints that exceed `max_keep_ckpts`."""
        if self.max_keep_ckpts <= 0:
            return []
        steps = [previous for previous in self.keep_ckpt_ids if previous != step] + [step]
        kept, dropped = steps[-self.max_keep_ckpts :], steps[: -self.max_keep_ckpts]
        self.keep_ckpt_ids.clear()
        self.keep_ckpt_ids.extend(kept)
        runner.message_hub.update_info("keep_ckpt_ids", kept)
        paths = map(self.filename_tmpl.format, dropped)
        return [self.file_backend.join_path(self.out_dir, path) for path in paths]
