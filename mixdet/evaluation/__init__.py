"""COCO box evaluation with unrounded results."""

import mixdet.compat.prepared

from mixdet.evaluation.coco_metric import CocoDetectionMetric
from mixdet.evaluation.coco_scores import BoxScores, as_results, load_coco, score_boxes
from mixdet.evaluation.scored_data import ScoredData

__all__ = [
    "BoxScores",
    "CocoDetectionMetric",
    "ScoredData",
    "as_results",
    "load_coco",
    "score_boxes",
]
