"""Samplers: which samples, in which order, and with which randomness."""

from mixdet.datasets.samplers.seeded_sampler import SampleIndex, SeededSampler

__all__ = ["SampleIndex", "SeededSampler"]
