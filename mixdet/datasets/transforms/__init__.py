"""Transforms that mmdet lacks, and faster versions of some of mmdet's transforms."""

from mixdet.datasets.transforms.pack import PackChannelsLast
from mixdet.datasets.transforms.seed import SeedSample, seed_generators
from mixdet.datasets.transforms.ssd_random_crop import SSDRandomCrop

__all__ = ["PackChannelsLast", "SSDRandomCrop", "SeedSample", "seed_generators"]
