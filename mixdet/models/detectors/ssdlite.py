"""SSDLite: a single-stage detector in which no channel number is typed twice."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable

import torch
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import SampleList
from torch import Tensor, nn

from mixdet.errors import MixDetError

Outputs = tuple[list[Tensor], list[Tensor]]


@MODELS.register_module()
class SSDLite(SingleStageDetector):
    """SSD with depthwise separable predictors (MobileNetV2, arXiv 1801.04381, section 6.2).

    It differs from mmdet's `SingleStageDetector` in how it is put together: the backbone is built
    first, and what it publishes (`out_channels`, `out_strides`) is handed to neck and head. A
    config therefore names no channel of its backbone, and `--cfg-options model.backbone.arch=l`
    is a whole change of backbone. A backbone that publishes nothing gets one dry run.

    Args:
        backbone: Config of any backbone whose outputs are (N, C, H, W) feature maps.
        neck: Config of mmdet's `SSDNeck` with `extra_channels`, the channels of the levels that
            it adds, in place of `in_channels` and `out_channels`; or of any neck that takes
            `in_channels`; or None.
        bbox_head: Config of an SSD head. `in_channels` is filled in, and so are the `strides` of
            its `anchor_generator`, where not given, as `round(input_size / grid)` for each level,
            its `input_size` where it takes one, and its `centers`, half a stride, where it takes
            them and no `center_offset` is given.
        train_cfg: Assigner, sampler and loss settings of the head.
        test_cfg: Post-processing settings of the head.
        data_preprocessor: Config of the data preprocessor.
        input_size: Side in pixels of the square images that the anchors are made for.
        channels_last: Keep weights and features in the NHWC memory format, in which depthwise
            convolutions are faster on CPUs and with cuDNN. Results do not change.
        init_cfg: Weight initialization of the whole detector.

    Raises:
        MixDetError: If `input_size` is no side of an image; if the backbone's outputs are not in
            order, finest first; if the anchor generator was given other strides, or another number
            of levels, than backbone and neck make; in `loss` and `predict`, if the images are not
            of `input_size`.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        bbox_head: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        input_size: int = 320,
        channels_last: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        # SingleStageDetector builds all three from the config as it stands: skip its __init__.
        super(SingleStageDetector, self).__init__(
            data_preprocessor=data_preprocessor, init_cfg=init_cfg
        )
        if not isinstance(input_size, int) or input_size < 32:
            raise MixDetError(f"model.input_size={input_size!r}: give whole pixels, 32 or more")
        # build_from_cfg must not see what we fill in: the user's config stays as written
        neck, head = copy.deepcopy(neck), copy.deepcopy(bbox_head)
        self.backbone = MODELS.build(backbone)
        shapes = _published_shapes(self.backbone, input_size) or _dry_run(
            self.backbone, torch.zeros(1, 3, input_size, input_size)
        )
        if sorted((grid for _, grid in shapes), reverse=True) != [grid for _, grid in shapes]:
            raise MixDetError(
                f"model.backbone: its outputs have {[grid for _, grid in shapes]} cells along a "
                "side: name the finer taps first"
            )
        if neck is not None:
            channels = tuple(channel for channel, _ in shapes)
            if "extra_channels" in neck:
                neck["out_channels"] = channels + tuple(neck.pop("extra_channels"))
            neck["in_channels"] = channels
            self.neck = MODELS.build(neck)
            shapes = _dry_run(self.neck, [torch.zeros(1, c, g, g) for c, g in shapes])

        head["in_channels"] = tuple(channel for channel, _ in shapes)
        if "anchor_generator" in head:
            anchors = head["anchor_generator"]
            strides = [round(input_size / grid) for _, grid in shapes]
            if list(anchors.setdefault("strides", strides)) != strides:
                raise MixDetError(
                    f"model.bbox_head.anchor_generator.strides is {anchors['strides']}, but the "
                    f"levels have {strides}: leave it out"
                )
            takes = inspect.signature(TASK_UTILS.get(anchors["type"])).parameters
            if "input_size" in takes:
                anchors.setdefault("input_size", input_size)
            if "centers" in takes and "center_offset" not in anchors:
                anchors.setdefault("centers", [(stride / 2, stride / 2) for stride in strides])
            for key in ("min_sizes", "max_sizes", "base_sizes"):
                if key in anchors and len(anchors[key]) != len(shapes):
                    raise MixDetError(
                        f"model.bbox_head.anchor_generator.{key} has {len(anchors[key])} entries, "
                        f"but backbone and neck make {len(shapes)} levels, with "
                        f"{[grid for _, grid in shapes]} cells along a side: give one entry a level"
                    )
        head.update(train_cfg=train_cfg, test_cfg=test_cfg)
        self.bbox_head = MODELS.build(head)
        self.train_cfg = train_cfg
        self.test_cfg = test_cfg
        self.input_size = input_size
        self.channels_last = channels_last
        self.graphed: Callable[[Tensor], Outputs] | None = None  # which `CudaGraphHook` sets
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """As mmdet's; refuses images of another size than the anchors are made for."""
        self._check_size(batch_inputs)
        if self.graphed is None:
            return super().loss(batch_inputs, batch_data_samples)
        outputs = self.graphed(batch_inputs)
        truths, ignored, metas = unpack_gt_instances(batch_data_samples)
        return self.bbox_head.loss_by_feat(*outputs, truths, metas, ignored)

    def outputs(self, batch_inputs: Tensor) -> Outputs:
        """The predictors' outputs for normalized images (N, 3, H, W).

        Returns:
            Class scores and box offsets, one (N, C, H, W) tensor a level each.
        """
        return self.bbox_head(self.extract_feat(batch_inputs))

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """As mmdet's; refuses images of another size than the anchors are made for."""
        self._check_size(batch_inputs)
        return super().predict(batch_inputs, batch_data_samples, rescale)

    def _check_size(self, batch_inputs: Tensor) -> None:
        height, width = batch_inputs.shape[-2:]
        if (height, width) != (self.input_size, self.input_size):
            raise MixDetError(
                f"the pipeline gives images of {width}x{height}, but model.input_size is "
                f"{self.input_size}, which the anchors are made for: make them agree"
            )

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps that the head sees.

        Args:
            batch_inputs: Normalized images (N, 3, H, W).

        Returns:
            One (N, C, H, W) tensor a level, finest first.
        """
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return super().extract_feat(batch_inputs.contiguous(memory_format=layout))


def _published_shapes(backbone: nn.Module, size: int) -> list[tuple[int, int]] | None:
    """(channels, cells along a side) of each output, as the backbone itself states it."""
    if not (hasattr(backbone, "out_channels") and hasattr(backbone, "out_strides")):
        return None
    return [
        (channels, -(-size // stride))
        for channels, stride in zip(backbone.out_channels, backbone.out_strides, strict=True)
    ]


@torch.no_grad()
def _dry_run(module: nn.Module, inputs: Tensor | list[Tensor]) -> list[tuple[int, int]]:
    """(channels, cells along a side) of each output, found by running the module once."""
    training = module.training
    module.eval()  # batch norm statistics stay as they are
    outputs = module(inputs)
    module.train(training)
    return [(output.shape[1], output.shape[2]) for output in outputs]
