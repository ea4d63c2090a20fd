"""The base of all configs in configs/table1.

The training recipe is coco_tf_1gpu. To train with TensorFlow's full recipe, replace coco_tf_1gpu
below by coco_tf_400k.
"""

_base_ = ["models/ssdlite_320_tf.py", "schedules/coco_tf_1gpu.py", "runtime.py"]
