"""Evaluation: COCO's numbers, unrounded."""

from mixdet.evaluation.coco_metric import CocoDetectionMetric
from mixdet.evaluation.coco_scores import BoxScores, load_coco, score_boxes

__all__ = ["BoxScores", "CocoDetectionMetric", "load_coco", "score_boxes"]
