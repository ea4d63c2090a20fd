"""What all rows of configs/table1 share. The recipe is chosen here, in one place for all of them:
coco_tf_1gpu, or coco_tf_400k, that of TensorFlow's siblings."""

_base_ = ["models/ssdlite_320_tf.py", "schedules/coco_tf_1gpu.py", "runtime.py"]
