"""Indices that carry their seed, so that a sample's randomness depends on nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from mmdet.registry import DATA_SAMPLERS
from mmengine.dataset import DefaultSampler


class SampleIndex(int):
    """An index into a data set that knows what its randomness is made of.

    It travels wherever the index goes: pickled into (persistent) workers, and through the data set
    to `results["sample_idx"]`, where `SeedSample` reads it. Wrappers that compute an inner index
    (`RepeatDataset` by `%`, `ConcatDataset` by `-`) keep the key: a repeated sample is augmented
    anew.

    Attributes:
        key: (seed, epoch, index), the index being the outermost data set's.
    """

    key: tuple[int, int, int]

    def __new__(cls, value: int, key: tuple[int, int, int]) -> SampleIndex:
        index = super().__new__(cls, value)
        index.key = key
        return index

    def __mod__(self, other: int) -> SampleIndex:
        return SampleIndex(int(self) % other, self.key)

    def __sub__(self, other: int) -> SampleIndex:
        return SampleIndex(int(self) - other, self.key)

    def __reduce__(self):
        return SampleIndex, (int(self), self.key)


@DATA_SAMPLERS.register_module()
class SeededSampler(DefaultSampler):
    """mmengine's `DefaultSampler`, whose indices carry (seed, epoch, index).

    With `SeedSample` first in the pipeline every sample is the same whatever the number of workers
    and of GPUs, and resuming is exact. `skip` starts the next epoch in its middle.
    """

    _skipped = 0

    def skip(self, samples: int) -> None:
        """Leave out the first samples (of this rank) the next time the sampler is iterated."""
        self._skipped = samples

    def __iter__(self) -> Iterator[SampleIndex]:
        first, self._skipped = self._skipped, 0
        seed, epoch = self.seed, self.epoch
        order = islice(super().__iter__(), first, None)
        return (SampleIndex(index, (seed, epoch, index)) for index in order)
