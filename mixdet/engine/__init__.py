"""What mmengine lacks: a loop that starts within an epoch, safe checkpoints, Ctrl-C, a report.

Importing this package registers them.
"""

import mixdet.compat.prepared

from mixdet.engine.amp import CpuAmpOptimWrapper
from mixdet.engine.file_backend import AtomicBackend, write_last_checkpoint
from mixdet.engine.hooks import (
    InterruptHook,
    KeepMemoryHook,
    ReportHook,
    SafeCheckpointHook,
    SeedIterationHook,
)
from mixdet.engine.loops import ResumableTrainLoop

__all__ = [
    "AtomicBackend",
    "CpuAmpOptimWrapper",
    "InterruptHook",
    "KeepMemoryHook",
    "ReportHook",
    "ResumableTrainLoop",
    "SafeCheckpointHook",
    "SeedIterationHook",
    "write_last_checkpoint",
]
