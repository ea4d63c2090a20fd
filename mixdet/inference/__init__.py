"""From a trained detector to boxes: `Detector("epoch_12.pth")("street.jpg")`.

Importing this package loads neither torch nor mmdet. A checkpoint loads them when it is opened; an
exported folder never does.
"""

from mixdet.inference.detector import Detections, Detector

__all__ = ["Detections", "Detector"]
