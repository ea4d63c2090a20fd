"""SSDLite, a single-stage detector that reads channels and strides from its backbone."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence

import torch
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import SampleList
from mmengine.utils import to_2tuple
from torch import Tensor

from mixdet.errors import MixDetError, one_line
from mixdet.image_size import as_size, as_wh, width_x_height
from mixdet.models.detectors.feature_maps import FeatureMap, backbone_maps, grids, neck_maps
from mixdet.models.task_modules import TFSSDAnchorGenerator

HeadOutputs = tuple[list[Tensor], list[Tensor]]


@MODELS.register_module()
class SSDLite(SingleStageDetector):
    """SSD with depthwise separable predictors (MobileNetV2, arXiv 1801.04381, section 6.2).

    mmdet's `SingleStageDetector` needs the backbone's channels in the configs of neck and head.
    This class builds the backbone first, and completes the two configs from the backbone's
    `out_channels` and `out_strides`. So `--cfg-options model.backbone.arch=l` is enough to change
    the backbone. A backbone without these attributes is run once on zeros to find its shapes.

    Args:
        backbone: Config of any backbone whose outputs are (N, C, H, W) feature maps.
        neck: Config of a neck, or None. `in_channels` is filled in. For mmdet's `SSDNeck`, give the
            channels of the added levels as `extra_channels`, and leave out `out_channels`.
        bbox_head: Config of an SSD head. `in_channels` is filled in. In its `anchor_generator`,
            missing arguments are filled in. `strides` is `round(input_size / cells)` for each
            level, or a pair (x, y) if the two sides differ. `input_size` and `centers` are filled
            in if the generator takes them. mmdet's generators take one number as `input_size`. They
            get the shorter side. A center is half a stride. `centers` is not filled in if
            `center_offset` is given. Sizes of anchors in pixels are not changed here. To scale
            them, use `mixdet.config.input_size.set_input_size`.
        train_cfg: Assigner, sampler and loss settings of the head.
        test_cfg: Post-processing settings of the head.
        data_preprocessor: Config of the data preprocessor.
        input_size: Size of the input images in pixels: (width, height), or the side of square
            images. The anchors are made for this size. It need not be a multiple of the strides.
        channels_last: Keep weights and features in the channels-last memory format (NHWC).
            This makes depthwise convolutions faster on CPUs and with cuDNN. Results do not change.
        init_cfg: Weight initialization of the whole detector.

    Raises:
        MixDetError: `mixdet.image_size.as_wh` refuses `input_size`, or the neck's convolutions need
            larger images. Or the backbone's outputs are not ordered from fine to coarse. Or the
            anchor generator has other strides or another number of levels than the backbone and the
            neck. `loss` and `predict` raise this error if the images do not have `input_size`.

    Attributes:
        input_wh: (width, height) of the input images in pixels.
    """

    reads_shapes = True  # so `shape_references` does not complete the config

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        bbox_head: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        input_size: int | tuple[int, int] = 320,
        channels_last: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        # Skip SingleStageDetector.__init__, which builds all parts from the config as written.
        super(SingleStageDetector, self).__init__(
            data_preprocessor=data_preprocessor, init_cfg=init_cfg
        )
        self.input_wh = as_wh(input_size, "model.input_size")
        self.backbone = MODELS.build(backbone)
        maps = backbone_maps(self.backbone, self.input_wh)
        _check_order(maps)
        if neck is not None:
            self.neck = MODELS.build(_complete_neck(neck, maps))
            try:
                maps = neck_maps(self.neck, maps)
            except RuntimeError as error:  # a convolution without padding needs several cells
                raise MixDetError(
                    f"model.neck cannot compute its levels from maps of {grids(maps)} cells: "
                    f"{one_line(error)}; model.input_size={input_size!r} may be too small"
                ) from error
        head = _complete_head(bbox_head, maps, self.input_wh)
        head.update(train_cfg=train_cfg, test_cfg=test_cfg)
        self.bbox_head = MODELS.build(head)
        self.train_cfg = train_cfg
        self.test_cfg = test_cfg
        self.channels_last = channels_last
        # `CudaGraphHook` sets `graphed` to a function that computes the outputs with a CUDA graph.
        self.graphed: Callable[[Tensor], HeadOutputs] | None = None
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Compute the losses as mmdet does.

        Raises:
            MixDetError: The images do not have `input_size`.
        """
        self._check_size(batch_inputs)
        if self.graphed is None:
            return super().loss(batch_inputs, batch_data_samples)
        outputs = self.graphed(batch_inputs)
        truths, ignored, metas = unpack_gt_instances(batch_data_samples)
        return self.bbox_head.loss_by_feat(*outputs, truths, metas, ignored)

    def outputs(self, batch_inputs: Tensor) -> HeadOutputs:
        """Compute the head's outputs.

        Args:
            batch_inputs: Normalized images (N, 3, H, W).

        Returns:
            Class scores and box offsets, each with one (N, C, H, W) tensor per level.
        """
        return self.bbox_head(self.extract_feat(batch_inputs))

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Detect objects as mmdet does.

        Raises:
            MixDetError: The images do not have `input_size`.
        """
        self._check_size(batch_inputs)
        return super().predict(batch_inputs, batch_data_samples, rescale)

    def _check_size(self, batch_inputs: Tensor) -> None:
        height, width = batch_inputs.shape[-2:]
        if (width, height) != self.input_wh:
            raise MixDetError(
                f"the pipeline gives images of {width}x{height}, but the anchors are made for "
                f"model.input_size={as_size(self.input_wh)}: set both with --size "
                f"{width_x_height(self.input_wh)}, or make the pipeline's Resize agree"
            )

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps that the head takes.

        Args:
            batch_inputs: Normalized images (N, 3, H, W).

        Returns:
            One (N, C, H, W) tensor per level, finest first.
        """
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return super().extract_feat(batch_inputs.contiguous(memory_format=layout))


def _check_order(maps: Sequence[FeatureMap]) -> None:
    """Raise a `MixDetError` if the feature maps are not ordered from fine to coarse."""
    for sides in ([m.rows for m in maps], [m.columns for m in maps]):
        if sorted(sides, reverse=True) != sides:
            raise MixDetError(
                f"model.backbone: the outputs have {grids(maps)} cells, but must be ordered from "
                "fine to coarse: name the finer taps first"
            )


def _complete_neck(neck: dict, maps: Sequence[FeatureMap]) -> dict:
    """Return a copy of the neck's config with the channels of the backbone's outputs."""
    neck = copy.deepcopy(neck)
    channels = [feature_map.channels for feature_map in maps]  # mmdet's FPN refuses a tuple
    if "extra_channels" in neck:
        neck["out_channels"] = channels + list(neck.pop("extra_channels"))
    neck["in_channels"] = channels
    return neck


def _complete_head(head: dict, maps: Sequence[FeatureMap], input_wh: tuple[int, int]) -> dict:
    """Return a copy of the head's config with the channels and the strides of its levels."""
    head = copy.deepcopy(head)
    head["in_channels"] = tuple(feature_map.channels for feature_map in maps)
    if "anchor_generator" in head:
        _complete_anchors(head["anchor_generator"], maps, input_wh)
    return head


def _complete_anchors(anchors: dict, maps: Sequence[FeatureMap], input_wh: tuple[int, int]) -> None:
    """Fill in an anchor generator's strides, input size and centers, in place.

    Raises:
        MixDetError: The given strides, or the number of levels, do not fit the feature maps.
    """
    width, height = input_wh
    pairs = [(round(width / m.columns), round(height / m.rows)) for m in maps]
    strides = [x if x == y else (x, y) for x, y in pairs]
    if isinstance(anchors.get("strides"), str):  # "neck" is what SSDLite fills in anyway
        del anchors["strides"]
    given = anchors.setdefault("strides", strides)
    if [tuple(to_2tuple(stride)) for stride in given] != pairs:
        raise MixDetError(
            f"model.bbox_head.anchor_generator.strides is {given}, but the levels have {strides}: "
            "remove strides from the config"
        )
    generator = TASK_UTILS.get(anchors["type"])
    parameters = inspect.signature(generator).parameters
    if "input_size" in parameters:
        pair = width != height and issubclass(generator, TFSSDAnchorGenerator)
        anchors.setdefault("input_size", input_wh if pair else min(input_wh))
    if "centers" in parameters and "center_offset" not in anchors:
        anchors.setdefault("centers", [(x / 2, y / 2) for x, y in pairs])
    for key in ("min_sizes", "max_sizes", "base_sizes"):
        if key in anchors and len(anchors[key]) != len(maps):
            raise MixDetError(
                f"model.bbox_head.anchor_generator.{key} has {len(anchors[key])} entries, but "
                f"backbone and neck give {len(maps)} levels, of {grids(maps)} cells: give one "
                "entry per level"
            )
