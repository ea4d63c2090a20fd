"""Task modules that this package adds to mmdet; boxes are coded by mmdet's own coder."""

from .tf_ssd_anchor_generator import TFSSDAnchorGenerator

__all__ = ["TFSSDAnchorGenerator"]
