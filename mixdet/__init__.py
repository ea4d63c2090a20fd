"""MixNet backbones and MixConv SSDLite detectors for MMDetection.

Importing this package loads neither torch nor mmdet. Import the subpackage that you need
(`mixdet.models`, `mixdet.inference`, ...), or `mixdet.plugin` to register all classes.
"""

import sys

from mixdet.moved import MovedFinder

__version__ = "0.1.0"

# Importing a module by its old name raises an error that states the new name.
sys.meta_path.append(MovedFinder)
