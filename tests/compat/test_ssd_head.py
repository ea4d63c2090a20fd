"""MixDet's patch gives mmdet's SSDHead the attribute `loss_cls`, which `predict_by_feat` reads."""

from __future__ import annotations

import mixdet.compat.prepared

import pytest
import torch
from mmdet.models.dense_heads import RetinaHead, SSDHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import nn

from mixdet import compat


class HeadWithLoss(SSDHead):
    """A subclass that trains with a loss module."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.loss_cls = nn.Identity()


def predict(kind: type = SSDHead) -> list:
    generator = {"type": "SSDAnchorGenerator", "scale_major": False, "input_size": 32}
    generator |= {"strides": [8, 16], "ratios": [[2], [2]]}
    head = kind(
        num_classes=3,
        in_channels=(4, 4),
        anchor_generator={**generator, "min_sizes": [8, 16], "max_sizes": [16, 24]},
        test_cfg=ConfigDict(nms_pre=50, nms={"type": "nms", "iou_threshold": 0.5}, max_per_img=5),
    )
    meta = {"img_shape": (32, 32), "scale_factor": (1.0, 1.0), "ori_shape": (32, 32)}
    scores, boxes = head((torch.randn(1, 4, 4, 4), torch.randn(1, 4, 2, 2)))
    return head.predict_by_feat(scores, boxes, batch_img_metas=[meta], rescale=True)


def test_predict_works_with_the_patch_and_fails_without(monkeypatch: pytest.MonkeyPatch) -> None:
    (result,) = predict()
    assert len(result.bboxes) == 5
    monkeypatch.setattr(SSDHead, "__init__", SSDHead.__init__.__wrapped__)
    with pytest.raises(AttributeError, match="loss_cls"):
        predict()


def test_the_patch_keeps_the_loss_module_of_a_subclass() -> None:
    assert len(predict(HeadWithLoss)) == 1
    head = HeadWithLoss(
        anchor_generator={
            "type": "SSDAnchorGenerator",
            "scale_major": False,
            "basesize_ratio_range": (0.15, 0.9),
            "strides": [8, 16, 32, 64, 100, 300],
            "ratios": [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        },
        in_channels=(1,) * 6,
    )
    assert isinstance(head.loss_cls, nn.Identity)
    assert "loss_cls" in dict(head.named_children())


def test_the_patch_changes_no_other_head_and_no_registry() -> None:
    compat.prepare()  # a second call must not patch the head again
    assert MODELS.get("SSDHead") is SSDHead
    assert not hasattr(SSDHead.__init__.__wrapped__, "__wrapped__")
    assert not hasattr(RetinaHead.__init__, "__wrapped__")
