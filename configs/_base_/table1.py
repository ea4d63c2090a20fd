"""The base of all rows of configs/table1.

Their recipe is chosen here: coco_tf_1gpu, or coco_tf_400k, which TensorFlow's SSDLite models use.
"""

_base_ = ["models/ssdlite_320_tf.py", "schedules/coco_tf_1gpu.py", "runtime.py"]
