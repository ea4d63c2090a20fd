"""The base of all configs in configs/table1.

It sets their recipe to coco_tf_1gpu. The other choice is coco_tf_400k, the recipe of TensorFlow's
SSDLite models.
"""

_base_ = ["models/ssdlite_320_tf.py", "schedules/coco_tf_1gpu.py", "runtime.py"]
