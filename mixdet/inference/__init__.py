"""Detect objects with a trained detector: `Detector("epoch_12.pth")("street.jpg")`.

Importing this package loads neither torch nor mmdet nor Pillow. Opening a checkpoint loads torch
and mmdet. An exported folder needs only NumPy, OpenCV and its runtime.
"""

from mixdet.inference.detector import Detections, Detector
from mixdet.inference.exported import ExportedNetwork
from mixdet.inference.manifest import read_manifest

__all__ = ["Detections", "Detector", "ExportedNetwork", "read_manifest"]
