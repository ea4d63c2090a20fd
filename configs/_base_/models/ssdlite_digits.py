"""SSDLite at 160 x 160 without its backbone, with strides 8, 16 and 32 and anchors for digits.

All other settings are those of ssdlite_320.py.
"""

_base_ = "ssdlite_320.py"

model = dict(
    input_size=160,
    neck=dict(
        extra_channels=(128,),
        level_strides=(2,),
        level_paddings=(1,),
        norm_cfg=dict(type="BN", eps=0.001, momentum=0.1),
    ),
    bbox_head=dict(
        num_classes=10,
        norm_cfg=dict(type="BN", eps=0.001, momentum=0.1),
        init_cfg=dict(type="Normal", layer="Conv2d", std=0.01),
        anchor_generator=dict(
            _delete_=True,
            type="AnchorGenerator",
            base_sizes=[18, 36, 72],
            scales=[1.0, 1.26, 1.59],
            ratios=[1.55],  # height / width; for 90 % of the digits it is between 1.15 and 2.1
        ),
    ),
    test_cfg=dict(max_per_img=100),
)
