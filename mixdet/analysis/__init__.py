"""Parameters, multiply-adds and receptive fields of detectors.

`complexity` counts parameters and multiply-adds. `stages` counts both for each part of a detector.
`receptive_field` measures effective receptive fields. `paper` holds numbers of the MixConv paper.
"""

import mixdet.plugin

from mixdet.analysis.complexity import Complexity, count_complexity, count_madds
from mixdet.analysis.receptive_field import ReceptiveField, measure_receptive_field
from mixdet.analysis.stages import StageSummary, describe_stages

__all__ = [
    "Complexity",
    "ReceptiveField",
    "StageSummary",
    "count_complexity",
    "count_madds",
    "describe_stages",
    "measure_receptive_field",
]
