"""Randomness of the model: a function of (seed, iteration, rank)."""

from __future__ import annotations

import torch
from mmdet.registry import HOOKS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mixdet.datasets.samplers import SeededSampler
from mixdet.datasets.transforms.seed import seed_generators


@HOOKS.register_module()
class SeedIterationHook(Hook):
    """Seed before every training iteration, and before the weights are initialized.

    So neither what the data pipeline drew in this process (without workers, `SeedSample` seeds
    here) nor where a run was resumed changes dropout and its like. Iterations are seeded per rank;
    initial weights are the same on all.
    """

    priority = "VERY_HIGH"

    def before_run(self, runner: Runner) -> None:
        """Seed the initialization of the weights, which comes next."""
        _seed_everywhere("run", runner.seed)

    def before_train(self, runner: Runner) -> None:
        """After a resume the checkpoint's seed counts: tell the sampler, which was built before."""
        sampler = runner.train_dataloader.sampler
        if isinstance(sampler, SeededSampler) and not runner.cfg.get("randomness", {}).get(
            "diff_rank_seed"
        ):
            sampler.seed = runner.seed

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Seed the iteration."""
        _seed_everywhere("iteration", runner.seed, runner.iter, get_rank())


def _seed_everywhere(*key: int | str) -> None:
    torch.manual_seed(seed_generators(*key))  # the accelerators too
