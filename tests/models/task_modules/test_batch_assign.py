"""Comparison of `assign_batch` with mmdet's assigner, which assigns image by image."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules import MaxIoUAssigner, PseudoSampler
from mmengine.structures import InstanceData

from mixdet.models.task_modules.batch_assign import assign_batch, can_assign_batch, pad_truths

side = st.integers(0, 12)
# Small whole numbers often give equal overlaps, and boxes without an area.
box = st.tuples(side, side, side, side).map(
    lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])]
)
thresholds = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7])


@st.composite
def assigners(draw) -> MaxIoUAssigner:
    low, high = sorted((draw(thresholds), draw(thresholds)))
    return MaxIoUAssigner(
        pos_iou_thr=draw(thresholds),
        neg_iou_thr=draw(st.sampled_from([high, (low, high)])),
        min_pos_iou=draw(thresholds),
        gt_max_assign_all=draw(st.booleans()),
        match_low_quality=draw(st.booleans()),
    )


@settings(max_examples=300, deadline=None)
@given(
    assigners(),
    st.lists(box, min_size=1, max_size=12),
    st.lists(st.lists(box, max_size=5), min_size=1, max_size=4),
)
def test_a_batch_is_assigned_as_mmdet_assigns_each_image(assigner, anchors, images):
    anchors = torch.tensor(anchors).float()
    truths = [
        InstanceData(
            bboxes=torch.tensor(boxes).float().reshape(-1, 4), labels=torch.arange(len(boxes))
        )
        for boxes in images
    ]
    assigned = assign_batch(assigner, anchors, *pad_truths(truths))
    for image, truth in zip(assigned, truths, strict=True):
        expected = assigner.assign(InstanceData(priors=anchors), truth)
        assert torch.equal(image, expected.gt_inds)


def test_a_batch_without_an_object_is_background():
    truths = [InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())] * 3
    assigned = assign_batch(MaxIoUAssigner(0.5, 0.5), torch.rand(7, 4), *pad_truths(truths))
    assert torch.equal(assigned, torch.zeros(3, 7).long())


class OwnAssigner(MaxIoUAssigner):
    """A subclass. It may assign by other rules, so `assign_batch` must not replace it."""


@pytest.mark.parametrize(
    ("assigner", "sampler"),
    [
        (OwnAssigner(0.5, 0.5), PseudoSampler()),
        (MaxIoUAssigner(0.5, 0.5, ignore_iof_thr=0.5), PseudoSampler()),
        (MaxIoUAssigner(0.5, 0.5, gpu_assign_thr=10), PseudoSampler()),
        (MaxIoUAssigner(0.5, [0.1, 0.5]), PseudoSampler()),
        (MaxIoUAssigner(0.5, 0.5), None),
    ],
)
def test_other_assigners_and_samplers_are_not_supported(assigner, sampler):
    assert can_assign_batch(MaxIoUAssigner(0.5, 0.5), PseudoSampler())
    assert not can_assign_batch(assigner, sampler)
