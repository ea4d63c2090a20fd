"""Seed the random generators from the key of a sample or of an iteration."""

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
        *key: Integers and strings. Begin with a string that names the purpose. Otherwise two
            purposes with the same integers would get the same random numbers.

    Returns:
        The 64-bit seed computed from the key. It can be used to seed other generators.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, "little")
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    # torch.manual_seed would also seed all accelerators, in every worker.
    torch.default_generator.manual_seed(seed)
    return seed


@TRANSFORMS.register_module()
class SeedSample(BaseTransform):
    """Seed all random generators from (seed, epoch, index). Use it as the first training transform.

    These three numbers are the key of the `SampleIndex` that `SeededSampler` yields. For an index
    without a key, the generators are not seeded. mmdet draws such an index after the pipeline
    rejects a sample. The generators then continue from the rejected sample, so the new sample is
    reproducible too. If the first index has no key, the transform logs a warning.
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
                "SeedSample: the index carries no seed, so samples depend on the number of "
                "workers: set train_dataloader.sampler.type to SeededSampler, and use no wrapper "
                "of the data set that replaces the index",
                logger="current",
                level=logging.WARNING,
            )
        return results
