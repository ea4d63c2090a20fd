"""MixNet, the network of the MixConv paper (arXiv 1907.09595, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.utils import make_divisible
from mmdet.registry import MODELS

from mixdet.errors import MixDetError
from mixdet.models.backbones.base import Row, StagedBackbone

RELU = dict(type="ReLU", inplace=True)
SWISH = dict(type="SiLU", inplace=True)

# The columns of the tables:
#   n       number of blocks. The first block of a stage has stride s, all others stride 1
#   k       depthwise kernel sizes: one, or one for each of the equal channel groups of a MixConv
#   s       stride
#   e       expand ratio: the block multiplies the number of its input channels by this. 1 makes a
#           depthwise separable block
#   c       channels of the output, before scaling
#   se      channels of squeeze-excite, as a fraction of the block's input channels. 0 means none
#   g       (expansion, projection): number of 1x1 convolutions side by side in each of these two
#           layers. Each convolution has its own group of channels
#   act     activation of the block
# The tap 'stageN' is the output of the N-th stage, which is `blocks.(N-1)`. 'stageN.expansion' is
# the output of the expansion in that stage's first block. It has e times the channels of the
# previous stage and the same resolution. 'stem' is the first convolution, 'head' the last one.
# Resolutions are for an image of 224 x 224.

S = (  # stem of 16 channels
    # stage1, 112x112: a depthwise separable block, as in MobileNetV2
    (Row(1, 3, 1, 1, 16, 0, (1, 1), RELU),),
    # stage2, 56x56: 3x3 kernels only, since large ones cost most at high resolutions
    (Row(1, 3, 2, 6, 24, 0, (2, 2), RELU), Row(1, 3, 1, 3, 24, 0, (2, 2), RELU)),
    # stage3, 28x28, stride 8: the first mixed kernels, swish and squeeze-excite
    (
        Row(1, (3, 5, 7), 2, 6, 40, 0.5, (1, 1), SWISH),
        Row(3, (3, 5), 1, 6, 40, 0.5, (2, 2), SWISH),
    ),
    # stage4, 14x14
    (
        Row(1, (3, 5, 7), 2, 6, 80, 0.25, (1, 2), SWISH),
        Row(2, (3, 5), 1, 6, 80, 0.25, (1, 2), SWISH),
    ),
    # stage5, 14x14, stride 16: wider than stage4, at the same resolution
    (
        Row(1, (3, 5, 7), 1, 6, 120, 0.5, (2, 2), SWISH),
        Row(2, (3, 5, 7, 9), 1, 3, 120, 0.5, (2, 2), SWISH),
    ),
    # stage6, 7x7, stride 32: the largest kernels
    (
        Row(1, (3, 5, 7, 9, 11), 2, 6, 200, 0.5, (1, 1), SWISH),
        Row(2, (3, 5, 7, 9), 1, 6, 200, 0.5, (1, 2), SWISH),
    ),
)
M = (  # stem of 24 channels
    # stage1, 112x112: a depthwise separable block, as in MobileNetV2
    (Row(1, 3, 1, 1, 24, 0, (1, 1), RELU),),
    # stage2, 56x56: mixed kernels from here on
    (Row(1, (3, 5, 7), 2, 6, 32, 0, (2, 2), RELU), Row(1, 3, 1, 3, 32, 0, (2, 2), RELU)),
    # stage3, 28x28, stride 8: swish and squeeze-excite from here on
    (
        Row(1, (3, 5, 7, 9), 2, 6, 40, 0.5, (1, 1), SWISH),
        Row(3, (3, 5), 1, 6, 40, 0.5, (2, 2), SWISH),
    ),
    # stage4, 14x14
    (
        Row(1, (3, 5, 7), 2, 6, 80, 0.25, (1, 1), SWISH),
        Row(3, (3, 5, 7, 9), 1, 6, 80, 0.25, (2, 2), SWISH),
    ),
    # stage5, 14x14, stride 16: wider than stage4, at the same resolution
    (
        Row(1, 3, 1, 6, 120, 0.5, (1, 1), SWISH),
        Row(3, (3, 5, 7, 9), 1, 3, 120, 0.5, (2, 2), SWISH),
    ),
    # stage6, 7x7, stride 32
    (
        Row(1, (3, 5, 7, 9), 2, 6, 200, 0.5, (1, 1), SWISH),
        Row(3, (3, 5, 7, 9), 1, 6, 200, 0.5, (1, 2), SWISH),
    ),
)
HEAD_CHANNELS = 1536  # the same for every arch

# arch: (table, channels of the stem, factor on the channels of all layers except the head, factor
# on the number of blocks per stage)
ARCHS = {
    "s": (S, 16, 1.0, 1.0),
    "m": (M, 24, 1.0, 1.0),
    "l": (M, 24, 1.3, 1.0),
    "xl": (M, 24, 1.6, 1.2),  # defined by timm, not in the paper
}


@MODELS.register_module()
class MixNet(StagedBackbone):
    """MixNet: S, M and L from the paper, and XL from timm. Parameters have timm's names.

    Args:
        arch: 's', 'm', 'l' or 'xl'.
        taps: Names of the outputs, see the legend above the tables: 'stem', 'stage1' to 'stage6',
            'stage2.expansion' to 'stage6.expansion', 'head' (1536 channels). The default is the
            last stage at each of the strides 8, 16 and 32.
        padding: 'symmetric' as in timm's `mixnet_*`, or 'same' as in timm's `tf_mixnet_*`, which
            means TensorFlow's SAME padding and a batch norm eps of 1e-3.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and stages 1 to n.
        norm_eval: Keep batch norm in evaluation mode.
        with_cp: Save memory in training by computing each block twice.
        norm_cfg: Normalization. An eps given here replaces the one of `padding='same'`.
        act_cfg: One activation for the whole network. None stands for the paper's choice: ReLU in
            the stem, stages 1 and 2 and the head, and swish in stages 3 to 6, also inside
            squeeze-excite.
        init_cfg: Weight initialization, such as dict(type='TimmPretrained').

    Raises:
        MixDetError: If a tap or a frozen stage does not exist, or the arch or padding is unknown.
    """

    def __init__(
        self,
        arch: str = "s",
        taps: Sequence[str] = ("stage3", "stage5", "stage6"),
        padding: str = "symmetric",
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if arch not in [*ARCHS]:
            raise MixDetError(f"model.backbone.arch={arch!r} is unknown: use one of {[*ARCHS]}")
        table, stem, width, depth = ARCHS[arch]
        stages = [[_scaled_row(row, width, act_cfg) for row in rows] for rows in table]
        for rows in stages:  # a deeper network repeats the last block of a stage
            total = sum(row.repeats for row in rows)
            extra = round(total * depth) - total
            rows[-1] = rows[-1]._replace(repeats=rows[-1].repeats + extra)
        super().__init__(
            make_divisible(stem * width, 8),
            stages,
            HEAD_CHANNELS,
            taps=taps,
            padding=padding,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg or RELU,
            init_cfg=init_cfg,
        )
        self.arch = arch

    @property
    def timm_name(self) -> str | None:
        """The name of the timm model whose ImageNet weights fit, or None."""
        if self.padding == "same":
            return None if self.arch == "xl" else f"tf_mixnet_{self.arch}.in1k"
        return f"mixnet_{self.arch}." + ("ra_in1k" if self.arch == "xl" else "ft_in1k")


def _scaled_row(row: Row, width: float, act_cfg: dict | None) -> Row:
    channels = make_divisible(row.channels * width, 8)
    return row._replace(channels=channels, act_cfg=act_cfg or row.act_cfg)
