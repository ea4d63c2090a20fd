"""Data sets, samplers, transforms, the collate function and the data preprocessor.

Importing this package adds them to the registries of mmengine and mmdet.
"""

import mixdet.compat.prepared

from mixdet.datasets.collate import packed_collate
from mixdet.datasets.data_preprocessor import BatchedDetDataPreprocessor
from mixdet.datasets.digit_scenes import DigitScenes
from mixdet.datasets.safe_coco import SafeCocoDataset
from mixdet.datasets.samplers import SampleIndex, SeededSampler
from mixdet.datasets.transforms import PackChannelsLast, SeedSample, SSDRandomCrop

__all__ = [
    "BatchedDetDataPreprocessor",
    "DigitScenes",
    "PackChannelsLast",
    "SSDRandomCrop",
    "SafeCocoDataset",
    "SampleIndex",
    "SeedSample",
    "SeededSampler",
    "packed_collate",
]
