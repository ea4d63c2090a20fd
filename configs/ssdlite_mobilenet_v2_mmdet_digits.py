"""SSDLite with MobileNetV2 from mmdet's own classes, to compare with the other digit configs.
The data, the schedule, the anchors and the neck's added level equal those of ssdlite_mixnet_s_digits.
The neck reads the outputs of mmdet's MobileNetV2 at strides 8 and 16.
"""

_base_ = [
    "_base_/datasets/digits_160.py",
    "_base_/schedules/digits.py",
    "_base_/runtime.py",
]

norm_cfg = dict(type="BN", eps=0.001, momentum=0.1)
channels = (32, 96, 128)

model = dict(
    type="SingleStageDetector",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,
    ),
    backbone=dict(type="MobileNetV2", out_indices=(2, 4), norm_cfg=dict(type="BN", momentum=0.1)),
    neck=dict(
        type="SSDNeck",
        in_channels=channels[:2],
        out_channels=channels,
        level_strides=(2,),
        level_paddings=(1,),
        l2_norm_scale=None,
        use_depthwise=True,
        norm_cfg=norm_cfg,
        act_cfg=dict(type="ReLU6"),
        init_cfg=dict(type="TruncNormal", layer="Conv2d", std=0.03),
    ),
    bbox_head=dict(
        type="SSDHead",
        in_channels=channels,
        num_classes=10,
        use_depthwise=True,
        norm_cfg=norm_cfg,
        act_cfg=dict(type="ReLU6"),
        init_cfg=dict(type="Normal", layer="Conv2d", std=0.01),
        anchor_generator=dict(
            type="AnchorGenerator",
            strides=[8, 16, 32],
            centers=[(4, 4), (8, 8), (16, 16)],
            base_sizes=[18, 36, 72],
            scales=[1.0, 1.26, 1.59],
            ratios=[1.55],
        ),
        bbox_coder=dict(
            type="DeltaXYWHBBoxCoder",
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2],
        ),
    ),
    train_cfg=dict(
        assigner=dict(
            type="MaxIoUAssigner",
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.0,
            ignore_iof_thr=0.5,  # an anchor on an ignored box or a crowd is no background
            gt_max_assign_all=False,
        ),
        sampler=dict(type="PseudoSampler"),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000,
        nms=dict(type="nms", iou_threshold=0.45),
        min_bbox_size=0,
        score_thr=0.02,
        max_per_img=100,
    ),
)
