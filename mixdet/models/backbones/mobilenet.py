"""MobileNetV1 and MobileNetV2 with the depthwise kernels as an argument.

These are the backbones of the MixConv paper's detection table (arXiv 1907.09595, table 1).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from mmdet.models.utils import make_divisible
from mmdet.registry import MODELS

from mixdet.errors import MixDetError
from mixdet.models.backbones.base import Row, StagedBackbone
from mixdet.models.layers import Expansion

# The columns of the tables: blocks in the stage, stride of the first block, expand ratio, channels.
# Taps are 'stem' and 'stageN'. V2 also has 'stageN.expansion' from stage2 on, and 'head'.
# Resolutions are for an image of 224 x 224.
V1 = (
    (1, 1, 1, 64),  # stage1, 112x112
    (2, 2, 1, 128),  # stage2, 56x56
    (2, 2, 1, 256),  # stage3, 28x28, stride 8
    (6, 2, 1, 512),  # stage4, 14x14, stride 16; ends with TensorFlow's Conv2d_11_pointwise
    (2, 2, 1, 1024),  # stage5, 7x7, stride 32; ends with Conv2d_13_pointwise
)
V2 = (
    (1, 1, 1, 16),  # stage1, 112x112: no expansion
    (2, 2, 6, 24),  # stage2, 56x56
    (3, 2, 6, 32),  # stage3, 28x28, stride 8
    (4, 2, 6, 64),  # stage4, 14x14
    (3, 1, 6, 96),  # stage5, 14x14, stride 16
    (3, 2, 6, 160),  # stage6, 7x7; its expansion has 576 channels at stride 16
    (1, 1, 6, 320),  # stage7, 7x7, stride 32
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280  # of V2. V1 has no head
RELU6 = dict(type="ReLU6", inplace=True)


class _MixMobileNet(StagedBackbone):
    """The base class of MobileNetV1 and MobileNetV2.

    Args:
        table: Architecture, `V1` or `V2`.
        head_channels: Channels of the head. Only a `widen_factor` above 1 changes them. None stands
            for no head.
        kernel_sizes: Depthwise kernel sizes, see `MixMobileNetV2`.
        widen_factor: Factor on the channels of all other layers.
        block_kernel_sizes: Other kernel sizes for single blocks, by the number of the block.
        act_cfg: Activation. None stands for ReLU6.
        **kwargs: The other arguments of `StagedBackbone`.
    """

    timm_names: ClassVar[dict[float, str]]  # by widen_factor

    def __init__(
        self,
        table: Sequence[tuple[int, int, int, int]],
        head_channels: int | None,
        kernel_sizes: int | Sequence[int],
        widen_factor: float,
        block_kernel_sizes: Mapping[int | str, int | Sequence[int]] | None = None,
        act_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        if not (isinstance(widen_factor, int | float) and 0 < widen_factor < math.inf):
            raise MixDetError(
                f"model.backbone.widen_factor={widen_factor!r}: give a number above 0"
            )
        # Numbers of blocks become strings, since `--cfg-options` gives them as strings
        own_kernels = {str(block): sizes for block, sizes in (block_kernel_sizes or {}).items()}

        def widened(channels: int) -> int:
            return make_divisible(channels * widen_factor, 8)

        kernels = (own_kernels.get(str(number), kernel_sizes) for number in itertools.count(1))
        stages = [
            [Row(1, next(kernels), stride, ratio, widened(channels)) for _ in range(repeats)]
            for repeats, stride, ratio, channels in table
        ]
        if head_channels:
            head_channels = max(head_channels, widened(head_channels))
        try:
            super().__init__(
                widened(STEM_CHANNELS), stages, head_channels, act_cfg=act_cfg or RELU6, **kwargs
            )
        except ValueError as error:
            also = f" or block_kernel_sizes={own_kernels}" if own_kernels else ""
            raise MixDetError(
                f"model.backbone.kernel_sizes={kernel_sizes!r}{also}: {error}"
            ) from error
        built = sum(not isinstance(block, Expansion) for stage in self.blocks for block in stage)
        unknown = own_kernels.keys() - {str(number) for number in range(1, built + 1)}
        if unknown:
            raise MixDetError(
                f"model.backbone.block_kernel_sizes: no block {', '.join(sorted(unknown))}; "
                f"{type(self).__name__} with taps={self.taps} has blocks 1 to {built}"
            )
        self.block_kernel_sizes = own_kernels
        self.kernel_sizes = (
            (kernel_sizes,) if isinstance(kernel_sizes, int) else tuple(kernel_sizes)
        )
        self.widen_factor = widen_factor

    @property
    def timm_name(self) -> str | None:
        """The name of the timm model whose ImageNet weights fit, or None."""
        plain = self.kernel_sizes == (3,) and not self.block_kernel_sizes
        if plain and self.padding == "symmetric":
            return self.timm_names.get(self.widen_factor)
        return None


@MODELS.register_module()
class MixMobileNetV2(_MixMobileNet):
    """MobileNetV2 (arXiv 1801.04381, table 2) with any depthwise kernels.

    With `kernel_sizes=3` it equals the network of torchvision and timm. Parameters have timm's
    names.

    Args:
        kernel_sizes: The kernel size of every depthwise convolution: an odd number, or one for each
            of the equal channel groups of a MixConv.
        widen_factor: Factor on all widths, which are rounded to multiples of 8. The head has at
            least 1280 channels.
        block_kernel_sizes: Other kernel sizes for single blocks, as in `{9: (3, 5, 7)}`, for
            ablations. Blocks are counted from 1. The stages of V2 have the blocks 1, 2-3, 4-6,
            7-10, 11-13, 14-16 and 17. The stages of V1 have the blocks 1, 2-3, 4-5, 6-11 and
            12-13. On a command line:
            `--cfg-options model.backbone.block_kernel_sizes.9=3,5,7`.
        taps: Names of the outputs: 'stem', 'stage1' to 'stage7', 'stage2.expansion' to
            'stage7.expansion', 'head'. The default is the last stage at each of the strides 8, 16
            and 32. mmdet's SSDLite uses ('stage5', 'head'), and TensorFlow's SSDLite uses
            ('stage6.expansion', 'head').
        **kwargs: `padding`, `frozen_stages`, `norm_eval`, `with_cp`, `norm_cfg` and `init_cfg` as
            for `StagedBackbone`, and `act_cfg`, which is ReLU6 by default.

    Raises:
        MixDetError: If `widen_factor`, a kernel size or the padding is invalid, or if a block, a
            tap or a frozen stage does not exist.
    """

    timm_names: ClassVar = {
        0.5: "mobilenetv2_050.lamb_in1k",
        1.0: "mobilenetv2_100.ra_in1k",
        1.4: "mobilenetv2_140.ra_in1k",
    }

    def __init__(
        self,
        kernel_sizes: int | Sequence[int] = (3, 5, 7),
        widen_factor: float = 1.0,
        taps: Sequence[str] = ("stage3", "stage5", "stage7"),
        **kwargs,
    ) -> None:
        super().__init__(V2, HEAD_CHANNELS, kernel_sizes, widen_factor, taps=taps, **kwargs)


@MODELS.register_module()
class MixMobileNetV1(_MixMobileNet):
    """MobileNetV1 (arXiv 1704.04861, table 1) with any depthwise kernels.

    With `kernel_sizes=3` it equals timm's `mobilenetv1_100`. `MixMobileNetV2` describes the
    arguments. The taps are 'stem' and 'stage1' to 'stage5', since the network has neither a head
    nor an expansion. TensorFlow's SSDLite uses ('stage4', 'stage5').
    """

    timm_names: ClassVar = {
        1.0: "mobilenetv1_100.ra4_e3600_r224_in1k",
        1.25: "mobilenetv1_125.ra4_e3600_r224_in1k",
    }

    def __init__(
        self,
        kernel_sizes: int | Sequence[int] = 3,
        widen_factor: float = 1.0,
        taps: Sequence[str] = ("stage3", "stage4", "stage5"),
        **kwargs,
    ) -> None:
        super().__init__(V1, None, kernel_sizes, widen_factor, taps=taps, residual=False, **kwargs)
