"""SSDLite at 320 x 320 as the TensorFlow Object Detection API has it: the frame of configs/table1.

Read off its ssdlite_mobilenet_v3_large_320x320_coco and ssdlite_mobiledet_cpu_320x320_coco: levels
of 512, 256, 256 and 128 channels after the backbone's two taps, 3 anchors a cell on the first
level and 6 on the others, 80 classes and the background, offsets coded in units of a tenth and a
fifth, IoU 0.5 and every true box's best anchor. The MixConv paper names no detector; its counts fit
this one. Three things are not TensorFlow's, and change no count:

- Padding is symmetric, so that exported files need no padding operators, and that timm's ImageNet
  weights fit once the backbone's `norm_cfg.eps` is theirs, 1e-5.
  `model.backbone.padding=same model.neck.conv_cfg.type=Conv2dAdaptivePadding` is TensorFlow's SAME
  throughout; grids, parameters and multiply-adds stay the same.
- Images are normalized as timm's weights of the row expect, not to -1 to 1 in all of them.
- Of each level the 1,000 best pairs of anchor and class go into NMS, not all of up to 96,000.
"""

_base_ = "ssdlite_320.py"

model = dict(
    # of all rows; type, kernels and taps are the row's
    backbone=dict(
        norm_cfg=dict(type="BN", eps=0.001, momentum=0.03),  # a decay of 0.97, as neck and head
        init_cfg=dict(type="TruncNormal", layer="Conv2d", std=0.03),
    ),
    bbox_head=dict(
        init_cfg=dict(type="Normal", layer="Conv2d", std=0.03),
        anchor_generator=dict(_delete_=True, type="TFSSDAnchorGenerator"),
        # on all anchors: the train_cfg's neg_pos_ratio is for hard-negative mining
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, alpha=0.75, gamma=2.0),
        # summed over the 4 offsets, which TensorFlow averages over (normalize_loc_loss_by_codesize)
        loss_bbox=dict(type="SmoothL1Loss", beta=1.0, loss_weight=0.25),
    ),
    test_cfg=dict(nms=dict(type="nms", iou_threshold=0.6), score_thr=1e-8, max_per_img=100),
)
