"""Training: a loop that can resume within an epoch, hooks, mixed precision and a file backend.

Importing this package registers its classes with mmengine.
"""

import mixdet.compat.prepared

from mixdet.engine.amp import CpuAmpOptimWrapper
from mixdet.engine.file_backend import AtomicBackend, write_last_checkpoint
from mixdet.engine.hooks import (
    CheckpointFitHook,
    CudaGraphHook,
    DataCheckHook,
    FiniteLossHook,
    FuseHook,
    InterruptHook,
    KeepMemoryHook,
    ProgressHook,
    ReportHook,
    ResumableEarlyStoppingHook,
    SafeCheckpointHook,
    SeedIterationHook,
    SettingsCheckHook,
    TotalBatchHook,
)
from mixdet.engine.loops import ResumableTrainLoop

__all__ = [
    "AtomicBackend",
    "CheckpointFitHook",
    "CpuAmpOptimWrapper",
    "CudaGraphHook",
    "DataCheckHook",
    "FiniteLossHook",
    "FuseHook",
    "InterruptHook",
    "KeepMemoryHook",
    "ProgressHook",
    "ReportHook",
    "ResumableEarlyStoppingHook",
    "ResumableTrainLoop",
    "SafeCheckpointHook",
    "SeedIterationHook",
    "SettingsCheckHook",
    "TotalBatchHook",
    "write_last_checkpoint",
]
