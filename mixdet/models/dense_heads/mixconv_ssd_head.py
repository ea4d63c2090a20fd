"""The SSDLite head with MixConv predictors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmdet.models.dense_heads import SSDHead
from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from mmengine.model import bias_init_with_prob
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mixdet.errors import MixDetError, one_line
from mixdet.models.dense_heads.levels import flatten_levels
from mixdet.models.dense_heads.ssd_post_processing import filter_detections, select_candidates
from mixdet.models.dense_heads.ssd_targets import SSDTargets, batch_targets, ignore_background
from mixdet.models.layers import MixConv2d
from mixdet.models.layers.mixconv import PADDINGS, SPLITS
from mixdet.models.layers.pointwise import PointwiseConv2d
from mixdet.models.task_modules.batch_assign import can_assign_batch

KernelSizes = int | Sequence[int]


@MODELS.register_module()
class MixConvSSDHead(SSDHead):
    """An SSDLite head that uses a MixConv as the depthwise convolution of its predictors.

    Every level has a predictor for classes and one for boxes. A predictor is a depthwise
    convolution, norm, activation and 1x1 convolution. With `kernel_sizes=3` the head is plain
    SSDLite (MobileNetV2, arXiv 1801.04381, section 6.2). Its outputs, losses and boxes then equal
    those of mmdet's `SSDHead(use_depthwise=True)`.

    Args:
        num_classes: Number of classes without the background. An anchor has `num_classes + 1` class
            outputs, and the last one is for the background.
        in_channels: Channels of each level.
        kernel_sizes: Kernel sizes of all levels, such as 3 or (3, 5, 7), or a list with such an
            entry for each level, as in [(3, 5, 7), (3, 5), 3, 3]. On a grid of 3x3 or fewer cells,
            a large kernel covers mostly padding.
        split: How MixConv divides the channels among its kernels: 'equal' or 'exponential'.
        padding: 'symmetric', or 'same' for TensorFlow's SAME padding.
        loss_cls: A softmax cross entropy or mmdet's `FocalLoss`. Cross entropy trains with
            hard-negative mining (SSD, section 2.2): `train_cfg.neg_pos_ratio` negatives for each
            positive. `FocalLoss` (sigmoid) trains on all anchors. Its target for the background
            output is 0 on every anchor, as with `encode_background_as_zeros` of the TensorFlow
            Object Detection API, and `predict` drops this output.
        loss_bbox: Regression loss of the positive anchors. None stands for mmdet's smooth L1 with
            a beta of `train_cfg.smoothl1_beta` (1 by default), summed over the offsets.
        **kwargs: Arguments of mmdet's `SSDHead`.

    Raises:
        MixDetError: If MixConv does not support a kernel size, `split` or `padding`; if
            `kernel_sizes` and `in_channels` differ in their number of levels; if post-processing
            fails with `test_cfg`; if the cross entropy has no valid `train_cfg.neg_pos_ratio`; or
            if the head does not support `loss_cls`.
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
        # SSDHead.__init__ calls _init_layers, which reads these attributes.
        self.kernel_sizes = _kernel_sizes_per_level(kernel_sizes, len(in_channels))
        self.split = split
        self.padding = padding
        self._anchors_of_size: dict[tuple, list[Tensor]] = {}
        super().__init__(
            num_classes=num_classes,
            in_channels=in_channels,
            use_depthwise=True,
            norm_cfg=norm_cfg or dict(type="BN"),
            act_cfg=act_cfg or dict(type="ReLU6"),
            **kwargs,
        )
        self._build_losses(loss_cls or dict(type="CrossEntropyLoss"), loss_bbox)
        # In a subclass, `__init__` is not finished here, so post-processing is not tried
        if self.test_cfg and type(self) is MixConvSSDHead:
            self._try_post_processing(self.test_cfg)

    def _build_losses(self, loss_cls: dict, loss_bbox: dict | None) -> None:
        self.loss_cls = MODELS.build(loss_cls)
        beta = (self.train_cfg or {}).get("smoothl1_beta", 1.0)
        self.loss_bbox = MODELS.build(loss_bbox or dict(type="SmoothL1Loss", beta=beta))
        # QualityFocalLoss and GaussianFocalLoss take other targets. This check does not accept
        # them, since they are not subclasses of FocalLoss.
        self.cls_focal_loss = isinstance(self.loss_cls, FocalLoss)
        self.use_sigmoid_cls = getattr(self.loss_cls, "use_sigmoid", None)
        if not self.cls_focal_loss and self.use_sigmoid_cls in (True, None):
            raise MixDetError(
                f"model.bbox_head.loss_cls: {type(self.loss_cls).__name__}"
                f"{' with use_sigmoid=True' if self.use_sigmoid_cls else ''} is not supported: use "
                "CrossEntropyLoss (softmax) or FocalLoss (sigmoid)"
            )
        if self.train_cfg and not self.cls_focal_loss:
            ratio = self.train_cfg.get("neg_pos_ratio")
            if not (isinstance(ratio, int | float) and ratio > 0):
                raise MixDetError(
                    f"model.train_cfg.neg_pos_ratio={ratio}: give a number above 0, such as 3"
                )

    def _init_layers(self) -> None:
        """Build the predictors. SSDHead's `__init__` calls this method."""
        levels = list(zip(self.in_channels, self.num_base_priors, self.kernel_sizes, strict=True))
        try:
            self.cls_convs, self.reg_convs = (
                nn.ModuleList(
                    self._predictor(channels, anchors * columns, kernel_sizes)
                    for channels, anchors, kernel_sizes in levels
                )
                for columns in (self.cls_out_channels, 4)
            )
        except ValueError as error:
            raise MixDetError(
                f"model.bbox_head.kernel_sizes={self.kernel_sizes!r}: {error}"
            ) from error

    def _predictor(
        self, channels: int, out_channels: int, kernel_sizes: KernelSizes
    ) -> nn.Sequential:
        return nn.Sequential(
            MixConv2d(channels, kernel_sizes, split=self.split, padding=self.padding),
            build_norm_layer(self.norm_cfg, channels)[1],
            build_activation_layer(dict(inplace=True) | self.act_cfg),
            PointwiseConv2d(channels, out_channels, 1),
        )

    def _try_post_processing(self, cfg: dict) -> None:
        """Post-process an example now, not hours later in the first validation.

        Raises:
            MixDetError: A value is out of range, or post-processing fails.
        """
        offsets = [torch.zeros(1, 4 * anchors, 1, 1) for anchors in self.num_base_priors]
        scores = [
            torch.zeros(1, self.cls_out_channels * anchors, 1, 1)
            for anchors in self.num_base_priors
        ]
        for level in scores:
            level[:, 0] = 100.0  # so that NMS has a candidate
        meta = dict(img_shape=(1, 1), scale_factor=(1.0, 1.0))
        try:
            valid = {
                "score_thr": cfg.get("score_thr", 0) < 1,
                "nms.iou_threshold": 0 <= cfg["nms"].get("iou_threshold", 0) <= 1,
                "max_per_img": cfg["max_per_img"] >= 1,
            }
            invalid = [key for key, is_valid in valid.items() if not is_valid]
            if not invalid:
                self.predict_by_feat(scores, offsets, batch_img_metas=[meta], rescale=True)
                return
            fault = f"{' and '.join(invalid)} out of range"
        except Exception as error:  # mmcv raises various errors for an unknown type or argument
            fault = str(error) if isinstance(error, MixDetError) else one_line(error)
        raise MixDetError(
            f"post-processing fails with model.test_cfg={dict(cfg)} and model.bbox_head.bbox_coder:"
            f" {fault}; an example that works is model.test_cfg=dict(score_thr=0.02, "
            "nms=dict(type='nms', iou_threshold=0.45), max_per_img=200)"
        )

    def init_weights(self) -> None:
        """Initialize. With focal loss, every class gets a probability of 0.01, as in RetinaNet."""
        super().init_weights()
        if self.cls_focal_loss:
            for predictor in self.cls_convs:
                nn.init.constant_(predictor[-1].bias, bias_init_with_prob(0.01))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Repeat the layers for one class in start weights (`any_class`) for each class."""
        for level, anchors in enumerate(self.num_base_priors):
            for name in ("weight", "bias"):
                weight = state_dict.pop(f"{prefix}any_class.{level}.{name}", None)
                if weight is not None and not self.use_sigmoid_cls:
                    columns = weight.view(anchors, 2, *weight.shape[1:])  # the object, background
                    columns = columns[:, [0] * self.num_classes + [1]]
                    state_dict[f"{prefix}cls_convs.{level}.3.{name}"] = columns.flatten(0, 1)
        super()._load_from_state_dict(state_dict, prefix, *args)

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
            cls_scores: One (N, anchors * (classes + 1), H, W) tensor per level.
            bbox_preds: One (N, anchors * 4, H, W) tensor per level.
            batch_gt_instances: One per image, with `bboxes` (n, 4) in (x1, y1, x2, y2) pixels of
                the input and `labels` (n,).
            batch_img_metas: One per image, with `pad_shape`.
            batch_gt_instances_ignore: Boxes that are neither object nor background, such as
                crowds. One per image, with `bboxes` (n, 4).

        Returns:
            The scalars `loss_cls` and `loss_bbox`. Both are divided by the number of positive
            anchors in the batch. In distributed training, every process divides by the mean of this
            number over the processes. All anchors then count equally, as in one process with the
            whole batch. In mmdet, each process divides by its own number.
        """
        labels, label_weights, bbox_targets, bbox_weights, avg_factor = self._targets(
            cls_scores, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore
        )
        if get_world_size() > 1:  # a mean, since the gradients are averaged over the processes
            avg_factor = torch.as_tensor(avg_factor, dtype=torch.float32, device=labels.device)
            avg_factor = reduce_mean(avg_factor)
        logits = _flatten_to_float(cls_scores, self.cls_out_channels)
        deltas = _flatten_to_float(bbox_preds, 4)
        if self.cls_focal_loss:
            # FocalLoss sets all targets to 0 for a label beyond the last column. The last
            # column is the background's here, so the background's label is raised by 1.
            labels = labels + (labels == self.num_classes)
            loss_cls = self.loss_cls(
                logits.flatten(0, 1), labels.flatten(), label_weights.flatten(), avg_factor
            )
        else:
            loss_cls = self._mined_loss(logits, labels, label_weights) / avg_factor
        if self.reg_decoded_bbox:
            anchors = torch.cat(self._anchors(cls_scores)).repeat(len(deltas), 1)
            deltas = self.bbox_coder.decode(anchors, deltas.flatten(0, 1))
            deltas = deltas.view_as(bbox_targets)
        loss_bbox = self.loss_bbox(deltas, bbox_targets, bbox_weights, avg_factor=avg_factor)
        return dict(loss_cls=loss_cls, loss_bbox=loss_bbox)

    def _targets(
        self,
        cls_scores: list[Tensor],
        truths: list[InstanceData],
        metas: list[dict],
        ignored: list[InstanceData] | None,
    ) -> SSDTargets:
        """Compute the targets of all images at once if possible, or else in mmdet's loop."""
        at_once = (
            can_assign_batch(self.assigner, self.sampler)
            and self.train_cfg["allowed_border"] < 0
            and all(isinstance(truth.bboxes, Tensor) for truth in truths)
            # If sizes differ, anchors in the padding of smaller images must be ignored.
            # `batch_targets` cannot do this.
            and len({tuple(meta["pad_shape"][:2]) for meta in metas}) == 1
        )
        if at_once:
            targets = batch_targets(
                torch.cat(self._anchors(cls_scores)),
                truths,
                self.assigner,
                None if self.reg_decoded_bbox else self.bbox_coder,
                self.num_classes,
                self.train_cfg["pos_weight"],
            )
        else:
            shapes = [score.shape[-2:] for score in cls_scores]
            anchors, valid = self.get_anchors(shapes, metas, device=cls_scores[0].device)
            *parts, num_positives = self.get_targets(anchors, valid, truths, metas, ignored)
            targets = SSDTargets(*(torch.cat(levels, 1) for levels in parts), num_positives)
        if ignored is not None and any(boxes is not None and len(boxes) for boxes in ignored):
            anchors = torch.cat(self._anchors(cls_scores))
            targets = ignore_background(targets, anchors, ignored, self.num_classes)
        return targets

    def _anchors(self, cls_scores: list[Tensor]) -> list[Tensor]:
        """Return the anchors of each level, (A, 4). They are kept until the image size changes."""
        shapes, device = tuple(score.shape[-2:] for score in cls_scores), cls_scores[0].device
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.prior_generator.grid_priors(shapes, device=device)
        if (shapes, device) not in self._anchors_of_size:
            # Training may later use the anchors that were made during a test. But training cannot
            # use tensors that were made in inference mode.
            with torch.inference_mode(False):
                anchors = self.prior_generator.grid_priors(shapes, device=device)
            self._anchors_of_size = {(shapes, device): anchors}
        return self._anchors_of_size[shapes, device]

    def _mined_loss(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Sum the cross entropy of the positives and of the hardest negatives of each image.

        Args:
            logits: (N, A, classes + 1).
            labels: (N, A), `num_classes` for the background.
            weights: (N, A), 0 for ignored anchors.
        """
        losses = self.loss_cls(logits.flatten(0, 1), labels.flatten(), reduction_override="none")
        losses = losses.view_as(labels) * weights
        positive = labels < self.num_classes
        quota = self.train_cfg["neg_pos_ratio"] * positive.sum(1, keepdim=True)
        # Rank the negatives of an image by their loss. Only those within the quota count.
        hardness = losses.detach().masked_fill(positive, -1.0)
        rank = hardness.argsort(1, descending=True).argsort(1)
        # Indexing by the mask would wait for the GPU to count the losses. `masked_fill` does not.
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
        """Turn the outputs for a batch into boxes.

        Each level keeps its best pairs of an anchor and a class: at most `nms_pre`, with scores
        above `score_thr`. The pairs of all levels are decoded at once. Class-aware NMS leaves at
        most `max_per_img` boxes per image.

        Args:
            cls_scores: One (N, anchors * (classes + 1), H, W) tensor per level.
            bbox_preds: One (N, anchors * 4, H, W) tensor per level.
            score_factors: Not used. mmdet's signature has it.
            batch_img_metas: One per image, with `img_shape`, and `scale_factor` if `rescale`.
            cfg: Replaces the head's `test_cfg`.
            rescale: Return boxes in pixels of the original image.
            with_nms: False returns the candidates without NMS.

        Returns:
            One per image: `bboxes` (n, 4) in (x1, y1, x2, y2) pixels, `scores` (n,) and `labels`
            (n,), 0 to `num_classes - 1`. NMS sorts them by descending score.
        """
        cfg = self.test_cfg if cfg is None else cfg
        candidates = []
        for cls_score, bbox_pred, anchors in zip(
            cls_scores, bbox_preds, self._anchors(cls_scores), strict=True
        ):
            logits = _flatten_to_float([cls_score], self.cls_out_channels).detach()
            scores = logits.sigmoid() if self.use_sigmoid_cls else logits.softmax(-1)
            deltas = _flatten_to_float([bbox_pred], 4).detach()
            scores = scores[..., : self.num_classes]  # without the background
            candidates.append(select_candidates(scores, deltas, anchors, cfg))
        scores, labels, deltas, anchors = (
            torch.cat(parts, 1) for parts in zip(*candidates, strict=True)
        )
        boxes = self.bbox_coder.decode(anchors.flatten(0, 1), deltas.flatten(0, 1))
        boxes = boxes.view_as(anchors)
        return [
            filter_detections(*image, cfg, rescale, with_nms)
            for image in zip(boxes, scores, labels, batch_img_metas, strict=True)
        ]


def _flatten_to_float(levels: list[Tensor], columns: int) -> Tensor:
    """Flatten levels, and convert half precision to float32 for the losses and boxes."""
    flat = flatten_levels(levels, columns)
    return flat.to(torch.promote_types(flat.dtype, torch.float32))


def _kernel_sizes_per_level(
    kernel_sizes: KernelSizes | Sequence[KernelSizes], levels: int
) -> list[KernelSizes]:
    """Return one entry per level. An int or a flat sequence of ints applies to all levels."""
    if isinstance(kernel_sizes, int) or all(isinstance(size, int) for size in kernel_sizes):
        return [kernel_sizes] * levels
    if len(kernel_sizes) != levels:
        raise MixDetError(
            f"model.bbox_head.kernel_sizes has {len(kernel_sizes)} entries for {levels} levels: "
            "give one entry per level, or an int or a sequence of ints for all levels"
        )
    return list(kernel_sizes)
