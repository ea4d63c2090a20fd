"""The base of all rows of configs/table1.

It is also the one place to choose their recipe: coco_tf_1gpu, or coco_tf_400k, which TensorFlow's
SSDLite models use.
"""

_base_ = ["models/ssdlite_320_tf.py", "schedules/coco_tf_1gpu.py", "runtime.py"]
