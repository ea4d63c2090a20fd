"""TensorFlow's from-scratch recipe, cut down to what one GPU does in a night.

120 epochs over train2017: 117,266 pictures that hold objects, 1 GPU x 128 pictures a batch, 916
iterations an epoch, 109,920 in all: 14.1 million pictures, 7 % of the 205 million of coco_tf_400k,
so expect less AP than it gives. Learning rate 0.1 for a batch of 128; all else as there.

COST
"""

_base_ = "coco_tf_400k.py"

train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=120, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=0.1))
auto_scale_lr = dict(base_batch_size=128)
