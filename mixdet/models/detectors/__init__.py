"""Detectors that this package adds to mmdet."""

from .fused import fused_twin
from .ssdlite import SSDLite

__all__ = ["SSDLite", "fused_twin"]
