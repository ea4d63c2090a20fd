"""Files that are either whole or not there: written to the side, synced, then renamed.

mmengine's local backend writes in place, so a run that is killed while it saves leaves half a
checkpoint under the right name.
"""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from mixdet.outputs import write_atomically


def write_last_checkpoint(work_dir: str | os.PathLike, checkpoint: str | os.PathLike) -> None:
    """Name the checkpoint that `--resume` continues from, where mmengine looks for it."""
    write_atomically(Path(work_dir, "last_checkpoint"), os.fspath(checkpoint).encode())


@register_backend("atomic")
class AtomicBackend(LocalBackend):
    """mmengine's local files, written whole: `backend_args=dict(backend="atomic")`."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes."""
        write_atomically(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        """Write text."""
        write_atomically(filepath, obj.encode(encoding))
