"""MixNet backbones and MixConv SSDLite detectors for MMDetection.

Importing this package loads neither torch nor mmdet: import the part you need
(`mixdet.models`, `mixdet.inference`, ...), or `mixdet.plugin` to register everything.
"""

import sys

from mixdet.moved import MovedFinder

__version__ = "0.1.0"

sys.meta_path.append(MovedFinder)  # an error at an old module name states the new one
