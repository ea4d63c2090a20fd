"""Write a config for a folder of images with COCO, YOLO or VOC annotations, and COCO files for it.

MixDet has its own readers, since the converters that were tried change boxes without a warning.
supervision 0.31 turns VOC boxes without an area into boxes of 1 x 1 pixel, and drops `difficult`.
globox 2.9 reads VOC's pixels as if they were counted from 0.
"""

from mixdet.own_data.own_config import write_own_config

__all__ = ["write_own_config"]
