"""Make the randomness of the model a function of (seed, iteration, rank)."""

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
    """Seed the random generators before every iteration and before the weights are initialized.

    Dropout and other random layers then do not depend on the iteration at which a run was resumed.
    They do not depend on the data pipeline either. (Without data loading workers, the pipeline
    seeds the generators of this process.) In an iteration, each rank has its own seed. The initial
    weights are the same on all ranks.
    """

    priority = "VERY_HIGH"

    def before_run(self, runner: Runner) -> None:
        """Seed the generators. mmengine initializes the weights after this call."""
        _seed_everywhere("run", runner.seed)

    def before_train(self, runner: Runner) -> None:
        """Give the sampler the run's seed. A resumed run has the seed of its checkpoint."""
        sampler = runner.train_dataloader.sampler
        seed_per_rank = runner.cfg.get("randomness", {}).get("diff_rank_seed")
        if isinstance(sampler, SeededSampler) and not seed_per_rank:
            sampler.seed = runner.seed

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Seed the generators for this iteration."""
        _seed_everywhere("iteration", runner.seed, runner.iter, get_rank())


def _seed_everywhere(*key: int | str) -> None:
    torch.manual_seed(seed_generators(*key))  # seeds the accelerators too
