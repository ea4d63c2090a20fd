"""A sampler that decides the order of the samples and the seed of each sample."""

from mixdet.datasets.samplers.seeded_sampler import SampleIndex, SeededSampler

__all__ = ["SampleIndex", "SeededSampler"]
