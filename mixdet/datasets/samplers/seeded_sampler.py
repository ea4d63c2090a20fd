"""A sampler whose indices carry the seed of each sample."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from mmdet.registry import DATA_SAMPLERS
from mmengine.dataset import DefaultSampler


class SampleIndex(int):
    """An index into a data set, with the key that seeds the randomness of the sample.

    The index is sent to the workers and passes through the data set to
    `results["sample_idx"]`, where `SeedSample` reads its key. Wrappers that compute an inner index
    (`RepeatDataset` by `%`, `ConcatDataset` by `-`) keep the key, so that each repetition of a
    sample is augmented in another way.

    Attributes:
        key: (seed, epoch, index). The index is that of the outermost data set.
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
    """mmengine's `DefaultSampler` with indices that carry (seed, epoch, index).

    With `SeedSample` as the first transform, a sample does not depend on the number of workers and
    GPUs, and a resumed run repeats the samples exactly.
    """

    _skipped = 0

    def skip(self, samples: int) -> None:
        """Skip the first samples of this rank, in the next iteration over the sampler only.

        Args:
            samples: Number of samples to skip.
        """
        self._skipped = samples

    def __iter__(self) -> Iterator[SampleIndex]:
        skipped, self._skipped = self._skipped, 0
        seed, epoch = self.seed, self.epoch
        order = islice(super().__iter__(), skipped, None)
        return (SampleIndex(index, (seed, epoch, index)) for index in order)
