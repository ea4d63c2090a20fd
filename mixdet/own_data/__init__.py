"""From a folder of labeled images to a config: COCO, YOLO or VOC in, COCO files and a config out.

The readers are MixDet's own, since each converter that was tried changes boxes without a word:
supervision 0.31 makes 1 x 1 boxes of VOC boxes without an area and drops `difficult`; globox 2.9
takes VOC's pixels as counted from 0.
"""

from mixdet.own_data.own_config import write_own_config

__all__ = ["write_own_config"]
