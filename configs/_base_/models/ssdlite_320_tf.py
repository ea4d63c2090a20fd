"""SSDLite of the TensorFlow Object Detection API at 320 x 320, for the configs in configs/table1.

The settings are those of TensorFlow's ssdlite_mobilenet_v3_large_320x320_coco and
ssdlite_mobiledet_cpu_320x320_coco. The detector has six levels: the backbone's two taps, and four
added levels of 512, 256, 256 and 128 channels. The first level has 3 anchors per cell, the others
have 6. There are 80 classes and the background. The `target_stds` of the box offsets are
0.1 for the center and 0.2 for the size. An anchor is positive if its IoU with a true box is 0.5 or more,
or if it is the best anchor of a true box. The MixConv paper names no detector, but its numbers of
parameters and multiply-adds fit this one. Three settings differ from TensorFlow's. They do not
change the numbers of parameters and multiply-adds:

- Padding is symmetric. Exported files then need no padding operators, and timm's ImageNet weights
  fit if the backbone's `norm_cfg.eps` is 1e-5. For TensorFlow's SAME padding, set
  `model.backbone.padding=same model.neck.conv_cfg.type=Conv2dAdaptivePadding`.
- Images are normalized as timm's weights for the backbone expect. TensorFlow scales all images to
  -1 to 1.
- From each level, NMS gets the 1,000 pairs of an anchor and a class with the best scores.
  TensorFlow's NMS gets all pairs, up to 96,000 from a level.
"""

_base_ = "ssdlite_320.py"

model = dict(
    # The configs in configs/table1 set the type, the kernel sizes and the taps.
    backbone=dict(
        # TensorFlow's decay of 0.97 is a momentum of 0.03 here. Neck and head have the same value.
        norm_cfg=dict(type="BN", eps=0.001, momentum=0.03),
        init_cfg=dict(type="TruncNormal", layer="Conv2d", std=0.03),
    ),
    bbox_head=dict(
        init_cfg=dict(type="Normal", layer="Conv2d", std=0.03),
        anchor_generator=dict(_delete_=True, type="TFSSDAnchorGenerator"),
        # Focal loss trains on all anchors. train_cfg.neg_pos_ratio therefore has no effect.
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, alpha=0.75, gamma=2.0),
        # SmoothL1Loss sums over the 4 offsets. The weight of 0.25 turns the sum into a mean, as
        # TensorFlow's normalize_loc_loss_by_codesize does.
        loss_bbox=dict(type="SmoothL1Loss", beta=1.0, loss_weight=0.25),
    ),
    test_cfg=dict(nms=dict(type="nms", iou_threshold=0.6), score_thr=1e-8, max_per_img=100),
)
