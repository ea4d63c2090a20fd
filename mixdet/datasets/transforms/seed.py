"""Seeding of the random generators by what a sample, or an iteration, is."""

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
        *key: Integers and strings; every part counts. Start with a word that says what for, so that
            two purposes with equal numbers do not share their randomness.

    Returns:
        The 64-bit seed that the key gives, for generators that are seeded elsewhere.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, "little")
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    # Not torch.manual_seed: that reaches for every accelerator, from every worker, each time.
    torch.default_generator.manual_seed(seed)
    return seed


@TRANSFORMS.register_module()
class SeedSample(BaseTransform):
    """First transform of a training pipeline: seed all randomness from (seed, epoch, index).

    It reads the `SampleIndex` that `SeededSampler` sent. A sample fetched in place of one that the
    pipeline refused comes with a plain index, drawn from the refused sample's randomness: that
    stream goes on, so it too is determined. Where no index ever carries a key, randomness is left
    as it is, and a warning says so once.
    """

    _seeded = False
    _warned = False

    def transform(self, results: dict) -> dict:
        """Seed; the results pass unchanged."""
        key = getattr(results["sample_idx"], "key", None)
        if key is not None:
            seed_generators("sample", *key)
            self._seeded = True
        elif not (self._seeded or self._warned):
            self._warned = True
            print_log(
                "SeedSample: the index carries no seed (the sampler is not SeededSampler, or a "
                "wrapper of the data set replaced the index), so samples depend on the workers",
                logger="current",
                level=logging.WARNING,
            )
        return results
