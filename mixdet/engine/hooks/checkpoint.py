"""Checkpoints without a moment in which none is whole."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mixdet.engine.file_backend import write_last_checkpoint


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's `CheckpointHook` that survives being killed at any time.

    Checkpoints and `last_checkpoint` are written to the side and renamed, and an old checkpoint is
    removed after the new one is there, not before (with `max_keep_ckpts=1` mmengine has none in
    between).

    Args:
        backend_args: Of mmengine's file backends; the default writes to the side and renames.
        **kwargs: Of `CheckpointHook`.
    """

    def __init__(self, *args, backend_args: dict | None = None, **kwargs) -> None:
        super().__init__(*args, backend_args=backend_args or {"backend": "atomic"}, **kwargs)

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
            for path in outdated:
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)

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
