"""Transforms that mmdet lacks."""

from mixdet.datasets.transforms.seed import SeedSample, seed_generators

__all__ = ["SeedSample", "seed_generators"]
