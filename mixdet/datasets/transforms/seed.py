"""Seed the random generators by the key of a sample or of an iteration."""

from __future__ import annotations

import hashlib
import logging
import random

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmengine.logging import print_log


def seed_generators(*key: int | str) -> int:
    """Seed `random`, NumPy's global generator and torch's CPU generator from a key.

    Args:
        *key: Integers and strings. Begin with a word for the purpose, so that two purposes with
            equal numbers get different random numbers.

    Returns:
        The 64-bit seed of the key, for other generators.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, "little")
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    # torch.manual_seed would also seed every accelerator, from every worker.
    torch.default_generator.manual_seed(seed)
    return seed


@TRANSFORMS.register_module()
class SeedSample(BaseTransform):
    """Seed all random generators from (seed, epoch, index), as the first training transform.

    The key comes from the `SampleIndex` of `SeededSampler`. If the pipeline rejects a sample, mmdet
    draws another index, which has no key. The new sample continues the random numbers of the
    rejected one, so it is reproducible too. If no index ever has a key, the transform changes
    nothing and logs one warning.
    """

    _seeded = False
    _warned = False

    def transform(self, results: dict) -> dict:
        """Seed the generators and return the results unchanged."""
        key = getattr(results["sample_idx"], "key", None)
        if key is not None:
            seed_generators("sample", *key)
            self._seeded = True
        elif not (self._seeded or self._warned):
            self._warned = True
            print_log(
                "SeedSample: the index carries no seed, so samples depend on the workers: set "
                "train_dataloader.sampler.type to SeededSampler (a wrapper of the data set that "
                "replaces the index also drops the seed)",
                logger="current",
                level=logging.WARNING,
            )
        return results
