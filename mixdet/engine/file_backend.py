"""A file backend that never leaves a partly written file.

A file is written under a temporary name, synced, and then renamed. mmengine's local backend writes
in place, so a run that is killed while it writes leaves a broken checkpoint.
"""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from mixdet.outputs import write_atomically


def write_last_checkpoint(work_dir: str | os.PathLike, checkpoint: str | os.PathLike) -> None:
    """Record which checkpoint `--resume` continues from, in the file that mmengine reads.

    Args:
        work_dir: The work folder, in which the file `last_checkpoint` is written.
        checkpoint: Path of the checkpoint.
    """
    write_atomically(Path(work_dir, "last_checkpoint"), os.fspath(checkpoint).encode())


@register_backend("atomic")
class AtomicBackend(LocalBackend):
    """mmengine's `LocalBackend` with atomic writes: `backend_args=dict(backend="atomic")`."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file."""
        write_atomically(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        """Write text to a file."""
        write_atomically(filepath, obj.encode(encoding))
