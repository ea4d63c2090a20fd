"""Detectors that this package adds to mmdet."""

from mixdet.models.detectors import shape_references
from mixdet.models.detectors.fused import fused_twin
from mixdet.models.detectors.ssdlite import SSDLite

__all__ = ["SSDLite", "fused_twin"]

shape_references.install()
