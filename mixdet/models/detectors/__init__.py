"""Detectors that this package adds to mmdet."""

from .ssdlite import SSDLite

__all__ = ["SSDLite"]
