"""Comparison of `MixConvSSDHead` with mmdet's SSDHead and torchvision's NMS and focal loss."""

from __future__ import annotations

import pytest
import torch
import torchvision
from mmdet.models.dense_heads import SSDHead
from mmdet.models.losses import FocalLoss
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mixdet.errors import MixDetError
from mixdet.models import MixConvSSDHead
from mixdet.models.dense_heads.ssd_targets import batch_targets

CHANNELS = (12, 16, 8)
GRIDS = (8, 4, 2)
LEVELS = tuple(zip(CHANNELS, GRIDS, strict=True))
SIZE = 64
CLASSES = 5

COMMON = dict(
    num_classes=CLASSES,
    in_channels=CHANNELS,
    norm_cfg=dict(type="BN"),
    act_cfg=dict(type="ReLU6"),
    anchor_generator=dict(
        type="SSDAnchorGenerator",
        scale_major=False,
        strides=[8, 16, 32],
        min_sizes=[8, 20, 40],
        max_sizes=[20, 40, 64],
        ratios=[[2], [2, 3], [2]],
    ),
    bbox_coder=dict(
        type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]
    ),
    train_cfg=ConfigDict(
        assigner=dict(
            type="MaxIoUAssigner",
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
            gt_max_assign_all=False,
        ),
        sampler=dict(type="PseudoSampler"),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
    ),
    test_cfg=ConfigDict(
        nms_pre=60,
        nms=dict(type="nms", iou_threshold=0.45),
        min_bbox_size=0,
        score_thr=0.02,
        max_per_img=40,
    ),
)
METAS = [
    dict(img_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE), scale_factor=(0.5, 0.25)),
    dict(img_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE), scale_factor=(2.0, 2.0)),
]
FOCAL = dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.75)


def make_head(**changes) -> MixConvSSDHead:
    head = MixConvSSDHead(**(COMMON | changes))
    head.init_weights()
    return head


def features(images: int = 2) -> list[torch.Tensor]:
    return [torch.randn(images, channels, grid, grid) for channels, grid in LEVELS]


def truth(boxes: list[list[float]], labels: list[int]) -> InstanceData:
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
    )


TRUTHS = [truth([[4, 4, 30, 40], [30, 10, 42, 22]], [0, 4]), truth([[10, 20, 60, 60]], [2])]


def pair_with_mmdet() -> tuple[MixConvSSDHead, torch.nn.Module]:
    """Return our head and mmdet's with the same random weights, in evaluation mode."""
    ours, theirs = make_head(kernel_sizes=3), SSDHead(use_depthwise=True, **COMMON)
    weights = [torch.randn_like(value.float()) * 0.3 for value in theirs.state_dict().values()]
    for head in (ours, theirs):
        values = head.state_dict().values()
        assert [v.shape for v in values] == [w.shape for w in weights]
        for value, weight in zip(values, weights, strict=True):
            value.copy_(weight.abs() + 0.5 if value.dim() == 1 else weight)
        head.eval()
    return ours, theirs


def test_outputs_and_losses_equal_those_of_mmdet():
    ours, theirs = pair_with_mmdet()
    inputs = features()
    outputs, expected = ours(inputs), theirs(inputs)
    for output, reference in zip(outputs[0] + outputs[1], expected[0] + expected[1], strict=True):
        torch.testing.assert_close(output, reference, rtol=1e-5, atol=1e-5)
    losses = ours.loss_by_feat(*outputs, TRUTHS, METAS)
    reference = theirs.loss_by_feat(*expected, TRUTHS, METAS)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, sum(reference[name]).squeeze(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pos_weight", [-1, 2.5])
@pytest.mark.parametrize("decoded", [False, True])
def test_targets_of_a_batch_equal_those_of_mmdet(pos_weight, decoded):
    """We compute the targets of a batch at once, mmdet image by image. One image has no object."""
    train_cfg = ConfigDict(COMMON["train_cfg"] | dict(pos_weight=pos_weight))
    head = make_head(train_cfg=train_cfg, reg_decoded_bbox=decoded)
    truths, metas = [*TRUTHS, truth([], [])], [*METAS, METAS[0]]
    anchors, valid = head.get_anchors([(g, g) for g in GRIDS], metas, device="cpu")
    coder = None if decoded else head.bbox_coder
    *targets, box_weights, num_positives = batch_targets(
        torch.cat(anchors[0]), truths, head.assigner, coder, CLASSES, pos_weight
    )
    *expected, count = head.get_targets(anchors, valid, truths, metas)
    *expected, expected_box_weights = (torch.cat(levels, 1) for levels in expected)
    assert num_positives == count
    assert torch.equal(box_weights, expected_box_weights)
    for target, reference in zip(targets, expected, strict=True):
        if target.dim() == 3:  # a box target of weight 0 has no effect
            target, reference = target * box_weights, reference * box_weights
        assert torch.equal(target, reference)


def test_anchors_in_the_padding_of_a_smaller_image_do_not_count():
    """`pad_shape` is the size of an image within its padded batch. The losses equal mmdet's."""
    ours, theirs = pair_with_mmdet()
    outputs = ours(features())
    metas = [METAS[0], METAS[1] | dict(pad_shape=(32, 32))]
    losses = ours.loss_by_feat(*outputs, TRUTHS, metas)
    expected = theirs.loss_by_feat(*outputs, TRUTHS, metas)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, sum(expected[name]).squeeze(), rtol=1e-5, atol=1e-5)
    everywhere = ours.loss_by_feat(*outputs, TRUTHS, METAS)
    assert losses["loss_cls"] != everywhere["loss_cls"]


def test_anchors_follow_the_size_of_the_image():
    """After predicting at one image size, the losses at another size equal those of a new head."""
    head, new = pair_with_mmdet()
    with torch.inference_mode():
        head.predict_by_feat(*head(features()), batch_img_metas=METAS)
    large = [torch.randn(2, channels, 2 * grid, 2 * grid) for channels, grid in LEVELS]
    metas = [meta | dict(img_shape=(128, 128), pad_shape=(128, 128)) for meta in METAS]
    head.train()
    outputs = head(large)
    losses = head.loss_by_feat(*outputs, TRUTHS, metas)
    sum(losses.values()).backward()
    expected = new.loss_by_feat(*outputs, TRUTHS, metas)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, sum(expected[name]).squeeze(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("threshold", [0.02, 0.3, 0.999])
def test_boxes_equal_those_of_mmdet(rescale, threshold):
    ours, theirs = pair_with_mmdet()
    outputs = ours(features())
    cfg = ConfigDict(COMMON["test_cfg"] | dict(score_thr=threshold))
    arguments = dict(batch_img_metas=METAS, cfg=cfg, rescale=rescale)
    results = ours.predict_by_feat(*outputs, **arguments)
    theirs.loss_cls = ours.loss_cls  # mmdet 3.3.0 does not set it, see mixdet.compat.ssd_head
    for result, expected in zip(
        results, theirs.predict_by_feat(*outputs, **arguments), strict=True
    ):
        torch.testing.assert_close(result.bboxes, expected.bboxes, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(result.scores, expected.scores)
        assert torch.equal(result.labels, expected.labels)


@pytest.mark.parametrize("loss_cls", [None, FOCAL], ids=["softmax", "focal"])
def test_post_processing_equals_nms_of_torchvision(loss_cls):
    """torchvision's class-aware NMS of all boxes above the threshold gives the same detections."""
    torch.manual_seed(0)  # with this seed no two scores are equal, so their order is certain
    head = make_head(loss_cls=loss_cls).eval()
    scores = [
        torch.randn(2, n * (CLASSES + 1), g, g) * 2 for n, g in zip((4, 6, 4), GRIDS, strict=True)
    ]
    deltas = [torch.randn(2, n * 4, g, g) for n, g in zip((4, 6, 4), GRIDS, strict=True)]
    cfg = ConfigDict(COMMON["test_cfg"] | dict(nms_pre=-1, max_per_img=10_000, score_thr=0.2))
    results = head.predict_by_feat(scores, deltas, batch_img_metas=METAS, cfg=cfg)

    anchors = torch.cat(head.prior_generator.grid_priors([(g, g) for g in GRIDS], device="cpu"))
    for i, result in enumerate(results):
        logits = torch.cat([s[i].permute(1, 2, 0).reshape(-1, CLASSES + 1) for s in scores])
        chances = logits.softmax(-1) if loss_cls is None else logits.sigmoid()
        offsets = torch.cat([d[i].permute(1, 2, 0).reshape(-1, 4) for d in deltas])
        boxes = head.bbox_coder.decode(anchors, offsets, max_shape=(SIZE, SIZE))
        rows, labels = (chances[:, :CLASSES] > 0.2).nonzero(as_tuple=True)
        kept = torchvision.ops.batched_nms(boxes[rows], chances[rows, labels], labels, 0.45)
        valid = ((boxes[rows[kept], 2:] - boxes[rows[kept], :2]) > 0).all(1)
        kept = kept[valid]
        torch.testing.assert_close(result.scores, chances[rows, labels][kept])
        torch.testing.assert_close(result.bboxes, boxes[rows[kept]], rtol=1e-5, atol=1e-4)
        assert torch.equal(result.labels, labels[kept])


@pytest.mark.parametrize("loss_cls", [None, FOCAL], ids=["softmax", "focal"])
def test_labels_stay_below_the_number_of_classes(loss_cls):
    """The background, which is the last column, has the highest score and is not predicted."""
    head = make_head(loss_cls=loss_cls).eval()
    scores, deltas = head(features())
    for level in scores:
        level.view(2, -1, CLASSES + 1, *level.shape[-2:])[:, :, CLASSES] = 1.0
    cfg = ConfigDict(COMMON["test_cfg"] | dict(score_thr=0.001))
    results = head.predict_by_feat(scores, deltas, batch_img_metas=METAS, cfg=cfg)
    assert all(len(result) > 0 for result in results)
    assert all(result.labels.max() < CLASSES for result in results)


def test_the_anchors_of_two_cells_equal_anchors_computed_by_hand():
    """By SSD, section 2.2, a cell has two squares and two rectangles.

    The sides of the squares are s and sqrt(s s'), where s' is the next level's scale. The
    rectangles have the scale s and the ratios 2 and 1/2.
    """
    head = make_head()
    level = head.prior_generator.grid_priors([(g, g) for g in GRIDS], device="cpu")[0]
    wide, tall, middle = 8 * 2**0.5, 8 / 2**0.5, (8 * 20) ** 0.5
    sizes = torch.tensor([[8, 8], [middle, middle], [tall, wide], [wide, tall]])
    # The first cell, and the cell in row 3 and column 5
    for cell, center in ((0, (4.0, 4.0)), (8 * 3 + 5, (44.0, 28.0))):
        expected = torch.cat(
            [torch.tensor(center) - sizes / 2, torch.tensor(center) + sizes / 2], 1
        )
        anchors = level[4 * cell : 4 * cell + 4]
        assert sorted(anchors.round(decimals=3).tolist()) == sorted(
            expected.round(decimals=3).tolist()
        )


def test_decoding_inverts_encoding():
    head = make_head()
    anchors = torch.cat(head.prior_generator.grid_priors([(g, g) for g in GRIDS], device="cpu"))
    corners = torch.rand(len(anchors), 2, 2) * SIZE
    boxes = torch.cat([corners.amin(1), corners.amax(1) + 1], 1)
    decoded = head.bbox_coder.decode(anchors, head.bbox_coder.encode(anchors, boxes))
    # The coder clips boxes with a side above 1000 / 16 times the anchor's. These boxes are smaller
    torch.testing.assert_close(decoded, boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("loss_cls", [None, FOCAL], ids=["softmax", "focal"])
def test_the_loss_of_images_without_objects_is_finite(loss_cls):
    head = make_head(loss_cls=loss_cls)
    losses = head.loss_by_feat(*head(features()), [truth([], [])] * 2, METAS)
    assert losses["loss_bbox"] == 0
    assert torch.isfinite(losses["loss_cls"])
    # Softmax loss uses 3 negatives per positive, so none here. Focal loss uses all anchors
    assert (losses["loss_cls"] == 0) == (loss_cls is None)


@pytest.mark.parametrize("loss_cls", [None, FOCAL], ids=["softmax", "focal"])
def test_loss_falls_towards_the_truth(loss_cls):
    """Both losses fall at every step of a path from random predictions to the targets."""
    head = make_head(loss_cls=loss_cls)
    shapes = [(g, g) for g in GRIDS]
    anchors, flags = head.get_anchors(shapes, METAS, device="cpu")
    labels, _, deltas, *_ = head.get_targets(anchors, flags, TRUTHS, METAS)
    one_hot = [torch.nn.functional.one_hot(level, CLASSES + 1) for level in labels]
    if loss_cls is not None:
        for hot in one_hot:
            hot[..., CLASSES] = 0  # the background's target is 0 everywhere

    def as_maps(levels, channels):
        return [
            level.reshape(2, g, g, -1).permute(0, 3, 1, 2).float()
            for level, g in zip(levels, GRIDS, strict=True)
        ]

    true_scores = as_maps([hot * 20.0 - 10.0 for hot in one_hot], CLASSES + 1)
    true_deltas = as_maps(deltas, 4)
    scores, boxes = (
        [torch.randn_like(s) for s in true_scores],
        [torch.randn_like(d) for d in true_deltas],
    )
    previous = None
    for step in (0.0, 0.25, 0.5, 0.75, 1.0):
        losses = head.loss_by_feat(
            [s.lerp(t, step) for s, t in zip(scores, true_scores, strict=True)],
            [b.lerp(t, step) for b, t in zip(boxes, true_deltas, strict=True)],
            TRUTHS,
            METAS,
        )
        if previous is not None:
            assert losses["loss_cls"] < previous["loss_cls"]
            assert losses["loss_bbox"] < previous["loss_bbox"]
        previous = losses
    assert previous["loss_cls"] < 1e-2
    assert previous["loss_bbox"] < 1e-6


def test_focal_loss_equals_that_of_torchvision():
    """The background also has a sigmoid output. Its target is 0 for every anchor."""
    head = make_head(loss_cls=FOCAL)
    outputs = head(features())
    anchors, flags = head.get_anchors([(g, g) for g in GRIDS], METAS, device="cpu")
    labels, *_, positives = head.get_targets(anchors, flags, TRUTHS, METAS)
    logits = torch.cat([s.permute(0, 2, 3, 1).reshape(2, -1, CLASSES + 1) for s in outputs[0]], 1)
    targets = torch.nn.functional.one_hot(torch.cat(labels, 1), CLASSES + 1).float()
    targets[..., CLASSES] = 0
    expected = torchvision.ops.sigmoid_focal_loss(logits, targets, 0.75, 2.0, "sum") / positives
    loss = head.loss_by_feat(*outputs, TRUTHS, METAS)["loss_cls"]
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


def test_the_loss_weight_of_the_config_scales_the_regression_loss():
    """The weight 0.25 divides the loss by 4, like TensorFlow's `normalize_loc_loss_by_codesize`."""
    head = make_head()
    outputs = head(features())
    plain = head.loss_by_feat(*outputs, TRUTHS, METAS)["loss_bbox"]
    quarter = make_head(loss_bbox=dict(type="SmoothL1Loss", beta=1.0, loss_weight=0.25))
    loss = quarter.loss_by_feat(*outputs, TRUTHS, METAS)["loss_bbox"]
    torch.testing.assert_close(loss, plain / 4)


def test_ignored_boxes_give_no_gradient():
    """Anchors on an ignored box count neither as object nor as background, so the loss is 0."""
    train_cfg = ConfigDict(COMMON["train_cfg"])
    train_cfg.assigner = dict(train_cfg.assigner, ignore_iof_thr=0.5)
    head = make_head(train_cfg=train_cfg)
    outputs = head(features())
    everything = [InstanceData(bboxes=torch.tensor([[0.0, 0.0, SIZE, SIZE]]))] * 2
    losses = head.loss_by_feat(*outputs, [truth([], [])] * 2, METAS, everything)
    assert losses["loss_cls"] == 0


def test_background_in_an_ignored_box_does_not_count_and_objects_in_it_do():
    """The loss lacks exactly the background anchors that are mostly inside the ignored box."""
    head = make_head(loss_cls=FOCAL)
    outputs = head(features())
    crowd = torch.tensor([[8.0, 8.0, 60.0, 50.0]])  # covers a part of the objects
    ignored = [InstanceData(bboxes=crowd), InstanceData(bboxes=crowd[:0])]
    without = head.loss_by_feat(*outputs, TRUTHS, METAS)
    losses = head.loss_by_feat(*outputs, TRUTHS, METAS, ignored)
    assert losses["loss_bbox"] == without["loss_bbox"]

    anchors, valid = head.get_anchors([(g, g) for g in GRIDS], METAS, device="cpu")
    labels, *_, positives = head.get_targets(anchors, valid, TRUTHS, METAS)
    labels, anchors = torch.cat(labels, 1)[0], torch.cat(anchors[0])
    corner = torch.minimum(anchors[:, 2:], crowd[0, 2:])
    sides = (corner - torch.maximum(anchors[:, :2], crowd[0, :2])).clamp(min=0)
    inside = sides.prod(1) / (anchors[:, 2:] - anchors[:, :2]).prod(1) > 0.5
    left_out = inside & (labels == CLASSES)
    assert 0 < left_out.sum() < inside.sum()  # some anchors in the box are objects
    logits = [s[:1].permute(0, 2, 3, 1).reshape(-1, CLASSES + 1) for s in outputs[0]]
    logits = torch.cat(logits)[left_out]
    lost = torchvision.ops.sigmoid_focal_loss(logits, torch.zeros_like(logits), 0.75, 2.0, "sum")
    torch.testing.assert_close(without["loss_cls"] - losses["loss_cls"], lost / positives)


def test_each_level_has_its_kernel_sizes():
    head = make_head(kernel_sizes=[(3, 5), 5, 3])
    kernels = [
        sorted({m.kernel_size[0] for m in conv[0].modules() if isinstance(m, torch.nn.Conv2d)})
        for conv in head.cls_convs
    ]
    assert kernels == [[3, 5], [5], [3]]
    with pytest.raises(MixDetError, match=r"kernel_sizes has 2 entries for 3 levels"):
        make_head(kernel_sizes=[(3, 5), 3])
    with pytest.raises(MixDetError, match=r"kernel_sizes=.*odd"):
        make_head(kernel_sizes=[(3, 4), 3, 3])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(split="linear"), r"bbox_head\.split='linear' is unknown: use one of \('equal'"),
        (dict(padding="valid"), r"bbox_head\.padding='valid' is unknown"),
        (dict(train_cfg=dict(neg_pos_ratio=-1)), "neg_pos_ratio=-1: give a number above 0"),
        (dict(train_cfg=dict(neg_pos_ratio="b")), "neg_pos_ratio=b: give a number above 0"),
        (dict(test_cfg=dict(nms=dict(type="nmss"))), r"test_cfg=.*nmss"),
        (dict(test_cfg=dict(nms=dict(type="nms", iou=0.5))), r"test_cfg=.*iou"),
        (dict(test_cfg=dict(nms=dict(iou_threshold=45))), r"nms\.iou_threshold out of range"),
        (dict(test_cfg=dict(nms=dict(iou_threshold=-2))), r"nms\.iou_threshold out of range"),
        (dict(test_cfg=dict(nms=None)), r"test_cfg=.*'nms': None"),
        (dict(test_cfg=dict(max_per_img=-1)), "max_per_img out of range"),
        (dict(test_cfg=dict(max_per_img=2.5)), "test_cfg=.*TypeError"),
        (dict(test_cfg=dict(max_per_img=None)), "test_cfg=.*TypeError"),
        (dict(test_cfg=dict(score_thr=5)), "score_thr out of range"),
        (dict(test_cfg=dict(score_thr="a")), "test_cfg=.*'score_thr': 'a'.*TypeError"),
        (dict(test_cfg=dict(nms_pre="a")), "test_cfg=.*'nms_pre': 'a'.*TypeError"),
        (dict(test_cfg=dict(min_bbox_size="q")), "test_cfg=.*'min_bbox_size': 'q'.*TypeError"),
    ],
    ids=str,
)
def test_wrong_arguments_of_the_head_are_refused_in_one_line(kwargs, message):
    merged = {
        key: COMMON[key] | value if key in ("train_cfg", "test_cfg") else value
        for key, value in kwargs.items()
    }
    with pytest.raises(MixDetError, match=message) as info:
        make_head(**merged)
    assert "\n" not in str(info.value)


def test_a_negative_score_threshold_is_accepted():
    make_head(test_cfg=COMMON["test_cfg"] | dict(score_thr=-1))


def test_a_subclass_may_post_process_by_its_own_attributes():
    """The constructor checks the test settings without calling an overridden method."""

    class Child(MixConvSSDHead):
        def __init__(self, **kwargs) -> None:
            super().__init__(**kwargs)
            self.boost = 2.0

        def predict_by_feat(self, *args, **kwargs):
            return super().predict_by_feat(*args, **kwargs), self.boost

    assert Child(**COMMON).boost == 2.0


@pytest.mark.parametrize(
    ("settings", "key"),
    [("train_cfg", "neg_pos_ratio"), ("test_cfg", "nms"), ("test_cfg", "max_per_img")],
)
def test_missing_settings_are_named(settings, key):
    cfg = {name: value for name, value in COMMON[settings].items() if name != key}
    with pytest.raises(MixDetError, match=rf"{settings}.*{key}"):
        make_head(**{settings: ConfigDict(cfg)})


@pytest.mark.parametrize(
    ("loss_cls", "name"),
    [
        (dict(type="CrossEntropyLoss", use_sigmoid=True), "CrossEntropyLoss with use_sigmoid=True"),
        (dict(type="QualityFocalLoss"), "QualityFocalLoss with use_sigmoid=True"),
        (dict(type="GaussianFocalLoss"), "GaussianFocalLoss"),
        (dict(type="SmoothL1Loss"), "SmoothL1Loss"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_losses_with_other_targets_are_refused(loss_cls, name):
    with pytest.raises(MixDetError, match=rf"bbox_head\.loss_cls: {name} is not supported: use"):
        make_head(loss_cls=loss_cls)


class ScaledFocalLoss(FocalLoss):
    """A subclass that is not registered."""


@pytest.mark.parametrize("kind", ["mmdet.FocalLoss", FocalLoss, ScaledFocalLoss])
def test_focal_loss_by_another_name_trains_as_focal_loss(kind):
    """The `type` of a config is a name, a name with a scope, or a class."""
    torch.manual_seed(0)
    head, other = make_head(loss_cls=FOCAL), make_head(loss_cls=FOCAL | dict(type=kind))
    outputs = head(features())
    loss = other.loss_by_feat(*outputs, TRUTHS, METAS)["loss_cls"]
    assert loss == head.loss_by_feat(*outputs, TRUTHS, METAS)["loss_cls"]
    assert loss > 0
    # the initial biases give every class a probability of 0.01
    assert torch.allclose(other.cls_convs[0][-1].bias.sigmoid(), torch.tensor(0.01))


def test_smoothl1_beta_of_train_cfg_takes_effect():
    head = make_head(train_cfg=COMMON["train_cfg"] | dict(smoothl1_beta=0.25))
    assert head.loss_bbox.beta == 0.25
    loss_bbox = dict(type="SmoothL1Loss", beta=0.5)
    assert make_head(loss_bbox=loss_bbox).loss_bbox.beta == 0.5
