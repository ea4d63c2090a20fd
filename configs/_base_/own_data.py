"""The base of a config for your own data (docs/custom_data.md): SSDLite with MixNet-S, 320 x 320.

The training recipe is schedules/digits.py. Its learning rate is for a batch of 8.
"""

_base_ = [
    "models/ssdlite_320.py",
    "datasets/coco_320.py",
    "schedules/digits.py",
    "runtime.py",
]

train_dataloader = dict(batch_size=8, num_workers=2)
# With a momentum of 0.1, the running statistics of batch norm adapt within 100 iterations.
model = dict(
    backbone=dict(
        type="MixNet",
        arch="s",
        taps=("stage5", "head"),  # strides 16 and 32
        norm_cfg=dict(type="BN", momentum=0.1),
    ),
    neck=dict(norm_cfg=dict(momentum=0.1)),
    bbox_head=dict(
        kernel_sizes=[(3, 5, 7), (3, 5, 7), (3, 5), 3, 3, 3],  # as in ssdlite_mixnet_m_coco.py
        norm_cfg=dict(momentum=0.1),
    ),
)
