"""The SSDLite head with MixConv predictors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmdet.models.dense_heads import SSDHead
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from mmengine.model import bias_init_with_prob
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mixdet.errors import MixDetError, one_line
from mixdet.models.dense_heads.suppress import suppress
from mixdet.models.layers import MixConv2d
from mixdet.models.layers.mixconv import PADDINGS, SPLITS
from mixdet.models.layers.pointwise import PointwiseConv2d
from mixdet.models.task_modules.batch_assign import assign_batch, assigns_batches, pad_truths

KernelSizes = int | Sequence[int]


@MODELS.register_module()
class MixConvSSDHead(SSDHead):
    """SSDLite predictors (depthwise, norm, activation, 1x1) whose depthwise part is a MixConv.

    Class and box have predictors of their own on every level. With `kernel_sizes=3` this is plain
    SSDLite (MobileNetV2, arXiv 1801.04381, section 6.2) and equals mmdet's
    `SSDHead(use_depthwise=True)`, forward, loss and boxes.

    Args:
        num_classes: Classes without the background, which is column `num_classes`, the last of
            the `num_classes + 1` outputs of an anchor.
        in_channels: Channels of each level.
        kernel_sizes: An int or a sequence of ints for all levels (3, or (3, 5, 7)), or a list
            with one such entry a level, as [(3, 5, 7), (3, 5), 3, 3]: on a grid of 3x3 cells and
            less a large kernel sees little but padding.
        split: 'equal' or 'exponential': how MixConv shares out the channels.
        padding: 'symmetric' or 'same' (TensorFlow's).
        loss_cls: A softmax cross entropy, which trains with hard-negative mining
            (`train_cfg.neg_pos_ratio` negatives for each positive, SSD, section 2.2), or a
            sigmoid `FocalLoss`, which trains on all anchors. The background's target is then 0 on
            every anchor (`encode_background_as_zeros` of the TensorFlow Object Detection API): the
            output is there to be counted, says nothing, and `predict` drops it.
        loss_bbox: Regression loss of the positive anchors; None is mmdet's smooth L1 with the beta
            of `train_cfg.smoothl1_beta`, or 1, summed over the offsets.
        **kwargs: As for mmdet's `SSDHead`.

    Raises:
        MixDetError: If a kernel size does not exist, `kernel_sizes` has another number of levels
            than `in_channels`, `split` or `padding` is unknown, post-processing with `test_cfg`
            does not work, `train_cfg` lacks the mining's ratio, or the loss is a sigmoid cross
            entropy, which hard-negative mining is not defined for.
    """

    def __init__(
        self,
        num_classes: int = 80,
        in_channels: Sequence[int] = (576, 1280, 512, 256, 256, 128),
        kernel_sizes: KernelSizes | Sequence[KernelSizes] = 3,
        split: str = "equal",
        padding: str = "symmetric",
        loss_cls: dict | None = None,
        loss_bbox: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        for key, value, known in (("split", split, SPLITS), ("padding", padding, PADDINGS)):
            if value not in known:
                raise MixDetError(f"model.bbox_head.{key}={value!r} is unknown: use one of {known}")
        # Plain values, set before SSDHead.__init__ calls _init_layers.
        self.kernel_sizes = _kernel_sizes_of_levels(kernel_sizes, len(in_channels))
        self.split = split
        self.padding = padding
        self._anchors: dict[tuple, list[Tensor]] = {}
        super().__init__(
            num_classes=num_classes,
            in_channels=in_channels,
            use_depthwise=True,
            norm_cfg=norm_cfg or dict(type="BN"),
            act_cfg=act_cfg or dict(type="ReLU6"),
            **kwargs,
        )
        loss_cls = loss_cls or dict(type="CrossEntropyLoss")
        self.loss_cls = MODELS.build(loss_cls)
        beta = (self.train_cfg or {}).get("smoothl1_beta", 1.0)
        self.loss_bbox = MODELS.build(loss_bbox or dict(type="SmoothL1Loss", beta=beta))
        self.use_sigmoid_cls = self.loss_cls.use_sigmoid
        self.cls_focal_loss = "Focal" in loss_cls["type"]
        if self.use_sigmoid_cls and not self.cls_focal_loss:
            raise MixDetError(
                f"model.bbox_head.loss_cls: {loss_cls['type']} with use_sigmoid has no defined "
                "background: use CrossEntropyLoss (softmax) or FocalLoss (sigmoid)"
            )
        if self.train_cfg and not self.cls_focal_loss:
            ratio = self.train_cfg.get("neg_pos_ratio")
            if not (isinstance(ratio, int | float) and ratio > 0):
                raise MixDetError(f"model.train_cfg.neg_pos_ratio={ratio}: give more than 0, as 3")
        if self.test_cfg and type(self) is MixConvSSDHead:  # a child is not made yet
            self._try_post_processing(self.test_cfg)

    def _init_layers(self) -> None:
        """Build the predictors; called by SSDHead's `__init__`."""
        levels = list(zip(self.in_channels, self.num_base_priors, self.kernel_sizes, strict=True))
        try:
            self.cls_convs, self.reg_convs = (
                nn.ModuleList(
                    self._predictor(channels, anchors * outputs, kernel_sizes)
                    for channels, anchors, kernel_sizes in levels
                )
                for outputs in (self.cls_out_channels, 4)
            )
        except ValueError as error:
            raise MixDetError(
                f"model.bbox_head.kernel_sizes={self.kernel_sizes!r}: {error}"
            ) from error

    def _predictor(self, channels: int, outputs: int, kernel_sizes: KernelSizes) -> nn.Sequential:
        return nn.Sequential(
            MixConv2d(channels, kernel_sizes, split=self.split, padding=self.padding),
            build_norm_layer(self.norm_cfg, channels)[1],
            build_activation_layer(dict(inplace=True) | self.act_cfg),
            PointwiseConv2d(channels, outputs, 1),
        )

    def _try_post_processing(self, cfg: dict) -> None:
        """Refuse, before hours of training, what the first validation would fail in."""
        cells = [torch.zeros(1, anchors, 1, 1) for anchors in self.num_base_priors]
        scores = [cell.repeat(1, self.cls_out_channels, 1, 1) for cell in cells]
        for level in scores:
            level[:, 0] = 100.0  # at least one candidate is left
        boxes = [cell.repeat(1, 4, 1, 1) for cell in cells]
        meta = dict(img_shape=(1, 1), scale_factor=(1.0, 1.0))
        try:
            wrong = [
                name
                for name, fits in (
                    ("score_thr", cfg.get("score_thr", 0) < 1),
                    ("nms.iou_threshold", 0 <= cfg["nms"].get("iou_threshold", 0) <= 1),
                    ("max_per_img", cfg["max_per_img"] >= 1),
                )
                if not fits
            ]
            words = f"{' and '.join(wrong)} out of range"
            if not wrong:
                self.predict_by_feat(scores, boxes, batch_img_metas=[meta], rescale=True)
                return
        except Exception as error:  # what mmcv makes of an unknown type or argument
            words = str(error) if isinstance(error, MixDetError) else one_line(error)
        raise MixDetError(
            f"model.test_cfg={dict(cfg)}, tried with model.bbox_head.bbox_coder: {words}; one that "
            "works is dict(score_thr=0.02, nms=dict(type='nms', iou_threshold=0.45), "
            "max_per_img=200)"
        )

    def init_weights(self) -> None:
        """Initialize; with focal loss every class starts at a probability of 0.01 (RetinaNet)."""
        super().init_weights()
        if self.cls_focal_loss:
            for predictor in self.cls_convs:
                nn.init.constant_(predictor[-1].bias, bias_init_with_prob(0.01))

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list[InstanceData] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            cls_scores: (N, anchors * (classes + 1), H, W) a level.
            bbox_preds: (N, anchors * 4, H, W) a level.
            batch_gt_instances: One an image, with `bboxes` (n, 4) in (x1, y1, x2, y2) pixels of
                the input and `labels` (n,).
            batch_img_metas: Meta information of the images.
            batch_gt_instances_ignore: Boxes that are neither object nor background.

        Returns:
            `loss_cls` and `loss_bbox`, scalars, both divided by the positive anchors of the batch.
            With several processes it is their mean that divides, so that they learn as one with
            the whole batch (mmdet divides by each process's own).
        """
        labels, label_weights, bbox_targets, bbox_weights, avg_factor = self._targets(
            cls_scores, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore
        )
        if get_world_size() > 1:  # gradients are averaged: so is what the losses are divided by
            avg_factor = torch.as_tensor(avg_factor, dtype=torch.float32, device=labels.device)
            avg_factor = reduce_mean(avg_factor)
        logits = self._flatten(cls_scores, self.cls_out_channels)
        deltas = self._flatten(bbox_preds, 4)
        if self.cls_focal_loss:
            # FocalLoss takes the label after the last column as all zeros: here the background's
            labels = labels + (labels == self.num_classes)
            loss_cls = self.loss_cls(
                logits.flatten(0, 1), labels.flatten(), label_weights.flatten(), avg_factor
            )
        else:
            loss_cls = self._mined_loss(logits, labels, label_weights) / avg_factor
        if self.reg_decoded_bbox:
            priors = torch.cat(self._priors(cls_scores)).repeat(len(deltas), 1)
            deltas = self.bbox_coder.decode(priors, deltas.flatten(0, 1))
            deltas = deltas.view_as(bbox_targets)
        loss_bbox = self.loss_bbox(deltas, bbox_targets, bbox_weights, avg_factor=avg_factor)
        return dict(loss_cls=loss_cls, loss_bbox=loss_bbox)

    def _targets(
        self,
        cls_scores: list[Tensor],
        truths: list[InstanceData],
        metas: list[dict],
        ignored: list[InstanceData] | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | int]:
        """What each anchor is to learn, as mmdet's `get_targets` says.

        mmdet loops over images and boxes, and on a GPU waits for it several times for each. Here
        the batch is done at once, where assigner and images are the usual ones.

        Returns:
            Labels (N, A), their weights (N, A), box targets (N, A, 4), their weights (N, A, 4),
            and the number of positive anchors, at least one an image.
        """
        by_image = (
            not assigns_batches(self.assigner, self.sampler)
            or self.train_cfg["allowed_border"] >= 0
            or any(not isinstance(truth.bboxes, Tensor) for truth in truths)
            # an image smaller than the batch has anchors in its padding, which do not count
            or len({tuple(meta["pad_shape"][:2]) for meta in metas}) > 1
        )
        if by_image:
            shapes = [score.shape[-2:] for score in cls_scores]
            anchors, valid = self.get_anchors(shapes, metas, device=cls_scores[0].device)
            *targets, avg_factor = self.get_targets(anchors, valid, truths, metas, ignored)
            return *(torch.cat(target, 1) for target in targets), avg_factor

        priors = torch.cat(self._priors(cls_scores))
        boxes, labels = pad_truths(truths)
        assigned = assign_batch(self.assigner, priors, boxes, labels)
        positive, index = assigned > 0, (assigned - 1).clamp(min=0)
        labels = labels.gather(1, index).masked_fill(~positive, self.num_classes)
        pos_weight = self.train_cfg["pos_weight"]
        weights = (assigned >= 0).float()
        if pos_weight > 0:
            weights = weights.masked_fill(positive, pos_weight)
        priors = priors.expand(len(boxes), -1, -1)
        # an anchor without an object has itself as its target: an offset of zero
        targets = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        targets = targets.where(positive[..., None], priors)
        if not self.reg_decoded_bbox:
            coded = self.bbox_coder.encode(priors.flatten(0, 1), targets.flatten(0, 1))
            targets = coded.view_as(targets)
        box_weights = positive[..., None].expand(-1, -1, 4).float()
        return labels, weights, targets, box_weights, positive.sum(1).clamp(min=1).sum()

    def _priors(self, cls_scores: list[Tensor]) -> list[Tensor]:
        """The anchors (anchors of the level, 4) of each level, made once for a size of image."""
        shapes, device = tuple(score.shape[-2:] for score in cls_scores), cls_scores[0].device
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.prior_generator.grid_priors(shapes, device=device)
        if (shapes, device) not in self._anchors:
            with torch.inference_mode(False):  # training may use them after testing
                made = self.prior_generator.grid_priors(shapes, device=device)
            self._anchors = {(shapes, device): made}
        return self._anchors[shapes, device]

    def _mined_loss(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Sum the cross entropy over the positives and the hardest negatives of each image.

        Args:
            logits: (N, A, classes + 1).
            labels: (N, A), `num_classes` for the background.
            weights: (N, A), 0 for ignored anchors.
        """
        losses = self.loss_cls(logits.flatten(0, 1), labels.flatten(), reduction_override="none")
        losses = losses.view_as(labels) * weights
        positive = labels < self.num_classes
        quota = self.train_cfg["neg_pos_ratio"] * positive.sum(1, keepdim=True)
        # Rank the negatives of an image by their loss; only those within the quota count.
        hardness = losses.detach().masked_fill(positive, -1.0)
        rank = hardness.argsort(1, descending=True).argsort(1)
        # not losses[...]: a GPU would be waited for, to count them
        return losses.masked_fill(~positive & (rank >= quota), 0).sum()

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: None = None,
        batch_img_metas: list[dict] | None = None,
        cfg: dict | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Turn a batch of outputs into boxes, as mmdet's heads do.

        On each level the `nms_pre` best pairs of anchor and class above `score_thr` are kept, all
        of them are decoded at once, and class-aware NMS leaves `max_per_img` boxes an image.

        Args:
            cls_scores: (N, anchors * (classes + 1), H, W) a level.
            bbox_preds: (N, anchors * 4, H, W) a level.
            score_factors: Unused; mmdet's signature.
            batch_img_metas: With `img_shape`, and `scale_factor` if `rescale`.
            cfg: In place of the head's `test_cfg`.
            rescale: Give boxes in pixels of the original image.
            with_nms: False leaves the candidates as they are.

        Returns:
            One an image: `bboxes` (n, 4) in (x1, y1, x2, y2) pixels, `scores` (n,), descending,
            `labels` (n,), 0 to `num_classes - 1`.
        """
        cfg = self.test_cfg if cfg is None else cfg
        candidates = [
            self._candidates(*level, cfg)
            for level in zip(cls_scores, bbox_preds, self._priors(cls_scores), strict=True)
        ]
        scores, labels, deltas, anchors = (
            torch.cat(parts, 1) for parts in zip(*candidates, strict=True)
        )
        boxes = self.bbox_coder.decode(anchors.flatten(0, 1), deltas.flatten(0, 1))
        boxes = boxes.view_as(anchors)
        return [
            self._finish(*image, cfg, rescale, with_nms)
            for image in zip(boxes, scores, labels, batch_img_metas, strict=True)
        ]

    def _candidates(
        self, cls_score: Tensor, bbox_pred: Tensor, priors: Tensor, cfg: dict
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The best pairs of anchor and class of one level, for all images.

        Returns:
            Scores (N, k), descending, -1 where below the threshold; labels (N, k); deltas
            (N, k, 4); anchors (N, k, 4).
        """
        logits = self._flatten([cls_score], self.cls_out_channels).detach()
        scores = logits.sigmoid() if self.use_sigmoid_cls else logits.softmax(-1)
        scores = scores[..., :-1].flatten(1)  # without the background
        threshold = cfg.get("score_thr", 0)
        k = scores.shape[1]
        if cfg.get("nms_pre", -1) > 0:
            k = min(k, cfg["nms_pre"])
        # No more than the fullest image needs: at a usual threshold few pairs are left.
        k = min(k, int((scores > threshold).sum(1).max()))
        scores, pairs = scores.topk(k)
        scores = scores.masked_fill(scores <= threshold, -1.0)
        rows, labels = pairs // self.num_classes, pairs % self.num_classes
        deltas = self._flatten([bbox_pred], 4).detach()
        deltas = deltas.gather(1, rows[..., None].expand(-1, -1, 4))
        return scores, labels, deltas, priors[rows]

    def _finish(
        self,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        meta: dict,
        cfg: dict,
        rescale: bool,
        with_nms: bool,
    ) -> InstanceData:
        """Clip, rescale, filter and suppress the candidates of one image."""
        height, width = meta["img_shape"][:2]
        boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))
        if rescale:
            boxes = boxes / boxes.new_tensor(meta["scale_factor"]).repeat(2)
        keep = scores >= 0
        if cfg.get("min_bbox_size", -1) >= 0:
            keep &= ((boxes[:, 2:] - boxes[:, :2]) > cfg["min_bbox_size"]).all(1)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        if with_nms and len(boxes):
            boxes, scores, labels = suppress(boxes, scores, labels, cfg)
        return InstanceData(bboxes=boxes, scores=scores, labels=labels)

    @staticmethod
    def _flatten(levels: list[Tensor], channels: int) -> Tensor:
        """Join (N, anchors * channels, H, W) levels into one (N, all anchors, channels) tensor.

        Halves become float32, in which losses and boxes are computed.
        """
        joined = torch.cat(
            [level.permute(0, 2, 3, 1).reshape(len(level), -1, channels) for level in levels], 1
        )
        return joined.to(torch.promote_types(joined.dtype, torch.float32))


def _kernel_sizes_of_levels(
    kernel_sizes: KernelSizes | Sequence[KernelSizes], levels: int
) -> list[KernelSizes]:
    """One entry a level; a flat sequence of ints is one MixConv for all levels."""
    if isinstance(kernel_sizes, int) or all(isinstance(size, int) for size in kernel_sizes):
        return [kernel_sizes] * levels
    if len(kernel_sizes) != levels:
        raise MixDetError(
            f"model.bbox_head.kernel_sizes has {len(kernel_sizes)} entries for {levels} levels: "
            "give one entry a level, or one int or one sequence of ints for all"
        )
    return list(kernel_sizes)
