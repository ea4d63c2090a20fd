"""COCO box evaluation with unrounded results."""

import mixdet.compat.prepared

from mixdet.evaluation.coco_metric import CocoDetectionMetric
from mixdet.evaluation.coco_scores import BoxScores, as_results, load_coco, score_boxes

__all__ = ["BoxScores", "CocoDetectionMetric", "as_results", "load_coco", "score_boxes"]
