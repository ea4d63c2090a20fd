"""Hooks of the training and test loops, for a config's `default_hooks`."""

from mixdet.engine.hooks.checkpoint_fit_hook import CheckpointFitHook
from mixdet.engine.hooks.checkpoint_hook import SafeCheckpointHook
from mixdet.engine.hooks.cuda_graph_hook import CudaGraphHook
from mixdet.engine.hooks.data_check_hook import DataCheckHook
from mixdet.engine.hooks.early_stopping_hook import ResumableEarlyStoppingHook
from mixdet.engine.hooks.finite_loss_hook import FiniteLossHook
from mixdet.engine.hooks.fuse_hook import FuseHook
from mixdet.engine.hooks.interrupt_hook import InterruptHook
from mixdet.engine.hooks.keep_memory_hook import KeepMemoryHook
from mixdet.engine.hooks.progress_hook import ProgressHook
from mixdet.engine.hooks.report_hook import ReportHook
from mixdet.engine.hooks.seed_iteration_hook import SeedIterationHook
from mixdet.engine.hooks.settings_check_hook import SettingsCheckHook
from mixdet.engine.hooks.total_batch_hook import TotalBatchHook

__all__ = [
    "CheckpointFitHook",
    "CudaGraphHook",
    "DataCheckHook",
    "FiniteLossHook",
    "FuseHook",
    "InterruptHook",
    "KeepMemoryHook",
    "ProgressHook",
    "ReportHook",
    "ResumableEarlyStoppingHook",
    "SafeCheckpointHook",
    "SeedIterationHook",
    "SettingsCheckHook",
    "TotalBatchHook",
]
