"""Hooks of ours; they stand in a config's `default_hooks`, which a child config merges into."""

from mixdet.engine.hooks.checkpoint import SafeCheckpointHook
from mixdet.engine.hooks.cuda_graph import CudaGraphHook
from mixdet.engine.hooks.data_check import DataCheckHook
from mixdet.engine.hooks.early_stopping import ResumableEarlyStoppingHook
from mixdet.engine.hooks.finite import FiniteLossHook
from mixdet.engine.hooks.fit import CheckpointFitHook
from mixdet.engine.hooks.fuse import FuseHook
from mixdet.engine.hooks.interrupt import InterruptHook
from mixdet.engine.hooks.memory import KeepMemoryHook
from mixdet.engine.hooks.report import ReportHook
from mixdet.engine.hooks.seed import SeedIterationHook
from mixdet.engine.hooks.total_batch import TotalBatchHook

__all__ = [
    "CheckpointFitHook",
    "CudaGraphHook",
    "DataCheckHook",
    "FiniteLossHook",
    "FuseHook",
    "InterruptHook",
    "KeepMemoryHook",
    "ReportHook",
    "ResumableEarlyStoppingHook",
    "SafeCheckpointHook",
    "SeedIterationHook",
    "TotalBatchHook",
]
