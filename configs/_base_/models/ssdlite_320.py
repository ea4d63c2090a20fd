"""SSDLite at 320 x 320 without its backbone.

Anchors, box coder, assigner and losses are those of mmdet's ssdlite_mobilenetv2-scratch, so that
the results can be compared. `SSDLite` asks the backbone for the channels and strides of its outputs.
"""

model = dict(
    type="SSDLite",
    input_size=320,
    data_preprocessor=dict(
        type="BatchedDetDataPreprocessor",
        # ImageNet's mean and standard deviation, RGB, on pixels from 0 to 255
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,
    ),
    neck=dict(
        type="SSDNeck",
        extra_channels=(512, 256, 256, 128),
        level_strides=(2, 2, 2, 2),
        level_paddings=(1, 1, 1, 1),
        l2_norm_scale=None,
        use_depthwise=True,
        norm_cfg=dict(type="BN", eps=0.001, momentum=0.03),
        act_cfg=dict(type="ReLU6"),
        init_cfg=dict(type="TruncNormal", layer="Conv2d", std=0.03),
    ),
    bbox_head=dict(
        type="MixConvSSDHead",
        num_classes=80,
        kernel_sizes=3,
        norm_cfg=dict(type="BN", eps=0.001, momentum=0.03),
        act_cfg=dict(type="ReLU6"),
        init_cfg=dict(type="Normal", layer="Conv2d", std=0.001),
        anchor_generator=dict(
            type="SSDAnchorGenerator",
            scale_major=False,
            # Each level has square anchors of two sides: min_size and sqrt(min_size * max_size), in
            # pixels. The levels have 20, 10, 5, 3, 2 and 1 cells per side.
            min_sizes=[48, 100, 150, 202, 253, 304],
            max_sizes=[100, 150, 202, 253, 304, 320],
            ratios=[[2, 3]] * 6,
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
            min_pos_iou=0.0,  # the best anchor of a true box is positive at any IoU
            ignore_iof_thr=-1,
            gt_max_assign_all=False,
        ),
        sampler=dict(type="PseudoSampler"),
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
        max_per_img=200,
    ),
)
