"""MixNet backbones and MixConv SSDLite detectors for MMDetection.

Importing this package loads neither torch nor mmdet: import the part you need
(`mixdet.models`, `mixdet.inference`, ...), or `mixdet.plugin` to register everything.
"""

__version__ = "0.1.0"
