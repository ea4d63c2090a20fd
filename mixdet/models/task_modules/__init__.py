"""Task modules that this package adds to mmdet."""

from mixdet.models.task_modules.tf_ssd_anchor_generator import TFSSDAnchorGenerator

__all__ = ["TFSSDAnchorGenerator"]
