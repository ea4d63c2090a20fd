"""What a config for data of one's own starts from (docs/custom_data.md): SSDLite with MixNet-S at
320 x 320 under the short recipe, whose learning rate is for a batch of 8."""

_base_ = [
    "models/ssdlite_320.py",
    "datasets/coco_320.py",
    "schedules/digits.py",
    "runtime.py",
]

train_dataloader = dict(batch_size=8, num_workers=2)
# the running averages of batch norm follow within a hundred iterations
model = dict(
    backbone=dict(
        type="MixNet",
        arch="s",
        taps=("stage5", "head"),  # strides 16 and 32
        norm_cfg=dict(type="BN", momentum=0.1),
    ),
    neck=dict(norm_cfg=dict(momentum=0.1)),
    bbox_head=dict(
        kernel_sizes=[(3, 5, 7), (3, 5, 7), (3, 5), 3, 3, 3],  # as ssdlite_mixnet_m_coco.py
        norm_cfg=dict(momentum=0.1),
    ),
)
