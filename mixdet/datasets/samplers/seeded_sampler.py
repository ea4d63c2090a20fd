"""A sampler that attaches a key to every index, to seed the random numbers of the sample."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from mmdet.registry import DATA_SAMPLERS
from mmengine.dataset import DefaultSampler


class SampleIndex(int):
    """An index into a data set, with the key that seeds the random numbers of the sample.

    The index is sent to the workers and passes through the data set to
    `results["sample_idx"]`, where `SeedSample` reads the key. Wrappers of a data set compute the
    index into the inner data set: `RepeatDataset` with `%`, and `ConcatDataset` with `-`. Both
    operators keep the key. Each repetition of a sample has another index in its key, and is
    therefore augmented in another way.

    Attributes:
        key: (seed, epoch, index). This index is an index into the outermost data set.
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
    """mmengine's `DefaultSampler`, but its indices carry the key (seed, epoch, index).

    With `SeedSample` as the first transform, a sample does not depend on the number of workers and
    GPUs. A resumed run gets exactly the same samples as a run that was never stopped.
    """

    _skipped = 0

    def skip(self, samples: int) -> None:
        """Skip the first samples of this rank, but only in the next iteration over the sampler.

        Args:
            samples: Number of samples to skip.
        """
        self._skipped = samples

    def __iter__(self) -> Iterator[SampleIndex]:
        skipped, self._skipped = self._skipped, 0
        seed, epoch = self.seed, self.epoch
        order = islice(super().__iter__(), skipped, None)
        return (SampleIndex(index, (seed, epoch, index)) for index in order)
