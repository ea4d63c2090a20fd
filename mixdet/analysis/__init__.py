"""What a detector costs and where it looks, beside the figures of the MixConv paper.

`complexity` counts parameters and multiply-adds, `stages` does so part by part, `receptive_field`
measures effective receptive fields, `paper` holds the figures that the paper states.
"""

import mixdet.plugin

from mixdet.analysis.complexity import Complexity, count_complexity, count_madds
from mixdet.analysis.receptive_field import ReceptiveField, measure_receptive_field
from mixdet.analysis.stages import Stage, describe_stages

__all__ = [
    "Complexity",
    "ReceptiveField",
    "Stage",
    "count_complexity",
    "count_madds",
    "describe_stages",
    "measure_receptive_field",
]
