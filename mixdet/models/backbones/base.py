"""What MixNet and the MobileNets share: stem, stages, head, taps, freezing, checkpointing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mixdet.errors import MixDetError
from mixdet.models.layers import Conv2dSame, DepthwiseSeparable, Expansion, InvertedResidual
from mixdet.models.layers.mixconv import PADDINGS
from mixdet.models.layers.norm_act import norm_act
from mixdet.models.layers.pointwise import PointwiseConv2d


class Row(NamedTuple):
    """A row of an architecture table: `repeats` blocks; only a stage's first one has a stride."""

    repeats: int
    kernel_sizes: int | Sequence[int]
    stride: int
    expand: int  # 1 is a depthwise separable block, more an inverted residual one
    channels: int
    se_ratio: float = 0.0
    groups: tuple[int, int] = (1, 1)  # of the 1x1 expansion and of the 1x1 projection
    act_cfg: dict | None = None  # None is the network's activation


class StagedBackbone(BaseModule):
    """A stem of stride 2, stages of blocks and perhaps a head; parameters are called as in timm.

    Only what the outputs need is built. `load_state_dict` takes the weights of timm's whole
    classifier: it passes over the classifier and what is not built, and over nothing else.

    Nothing inside is a mmengine `BaseModule`, so that no part initializes itself after `init_cfg`.

    Attributes:
        out_channels: Channels of each output, in the order of the outputs.
        out_strides: Stride of each output, in pixels of the image.

    Args:
        stem_channels: Channels of the 3x3 stem.
        stages: The rows of each stage.
        head_channels: Channels of the 1x1 head convolution; None where there is no head.
        taps: Names of the outputs, in order: 'stem'; 'stageN', the output of `blocks.(N-1)`;
            'stageN.expansion', the widened tensor of that stage's first block, before its
            depthwise convolution and still at the finer stride; 'head'.
        padding: 'symmetric', or 'same' for TensorFlow's flavor: SAME padding and, unless
            `norm_cfg` sets another, an eps of 1e-3 in the norms.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and stages 1 to n.
        norm_eval: Keep batch norm in evaluation mode, so that training leaves its statistics.
        with_cp: Compute each block again in the backward pass instead of storing its activations.
        norm_cfg: Normalization; None is batch norm.
        act_cfg: Activation where a row names none.
        residual: Whether depthwise separable blocks are MobileNetV2's, or else MobileNetV1's.
        init_cfg: Weight initialization; None is He's, with the fan-out of a convolution's group.

    Raises:
        MixDetError: If a tap, the padding or a frozen stage does not exist.
    """

    def __init__(
        self,
        stem_channels: int,
        stages: Sequence[Sequence[Row]],
        head_channels: int | None,
        *,
        taps: Sequence[str],
        padding: str = "symmetric",
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        norm_cfg: dict | None = None,
        act_cfg: dict,
        residual: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if padding not in PADDINGS:
            raise MixDetError(
                f"model.backbone.padding={padding!r} is unknown: use one of {PADDINGS}"
            )
        norm_cfg = norm_cfg or dict(type="BN")
        if padding == "same":
            norm_cfg = dict(eps=1e-3) | norm_cfg
        shapes = _shapes(stem_channels, stages, head_channels)
        taps = (taps,) if isinstance(taps, str) or not isinstance(taps, Sequence) else tuple(taps)
        if not taps or not all(tap in [*shapes] for tap in taps):
            raise MixDetError(
                f"model.backbone.taps={taps!r} must name outputs of {type(self).__name__}, "
                f"which are: {', '.join(shapes)}"
            )
        self.taps = taps
        self.out_channels = tuple(shapes[tap][0] for tap in taps)
        self.out_strides = tuple(shapes[tap][1] for tap in taps)
        self.padding = padding
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp

        same = padding == "same"
        self.conv_stem = (Conv2dSame if same else nn.Conv2d)(
            3, stem_channels, 3, stride=2, padding=0 if same else 1, bias=False
        )
        self.bn1 = build_norm_layer(norm_cfg, stem_channels)[1]
        self.act1 = build_activation_layer(act_cfg)

        order = list(shapes)
        last = max(order.index(tap) for tap in taps)
        self.blocks = nn.Sequential()
        channels = stem_channels
        for number, rows in enumerate(stages, 1):
            if order.index(f"stage{number}") <= last:
                stage = _blocks(channels, rows, residual, padding, norm_cfg, act_cfg)
            elif order[last] == f"stage{number}.expansion":  # what follows would have no gradient
                stage = [_expansion(channels, rows[0], norm_cfg, act_cfg)]
            else:
                break
            self.blocks.append(nn.Sequential(*stage))
            channels = rows[-1].channels
        if "head" in taps:
            self.conv_head = PointwiseConv2d(channels, head_channels, 1, bias=False)
            self.bn2 = build_norm_layer(norm_cfg, head_channels)[1]
            self.act2 = build_activation_layer(act_cfg)

        whole = len(self.blocks) - order[last].endswith(".expansion")
        self._unbuilt = ("classifier.",) + tuple(f"blocks.{i}." for i in range(whole, len(stages)))
        if "head" not in taps:
            self._unbuilt += ("conv_head.", "bn2.")
        if not (isinstance(frozen_stages, int) and -1 <= frozen_stages <= len(self.blocks)):
            raise MixDetError(
                f"model.backbone.frozen_stages={frozen_stages!r} must be a whole number from -1 to "
                f"{len(self.blocks)}, the last stage that taps={self.taps} needs"
            )
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the features.

        Args:
            x: Images (N, 3, H, W).

        Returns:
            One (N, out_channels, ceil(H/out_stride), ceil(W/out_stride)) tensor a tap.
        """
        x = norm_act(self.bn1, self.act1, self.conv_stem(x))
        outputs = {"stem": x} if "stem" in self.taps else {}
        for number, stage in enumerate(self.blocks, 1):
            for index, block in enumerate(stage):
                name = f"stage{number}.expansion"
                if index == 0 and name in self.taps:
                    expanded = outputs[name] = self._run(block, block.expand, x)
                    if isinstance(block, InvertedResidual):
                        x = self._run(block, block.project, expanded, x)
                else:
                    x = self._run(block, block, x)
            if f"stage{number}" in self.taps:
                outputs[f"stage{number}"] = x
        if "head" in self.taps:
            outputs["head"] = norm_act(self.bn2, self.act2, self.conv_head(x))
        return tuple(outputs[tap] for tap in self.taps)

    def _run(self, block: nn.Module, function: Callable, *inputs: Tensor) -> Tensor:
        """Call a block, or a part of it, with or without storing its activations."""
        if not (self.with_cp and torch.is_grad_enabled()):
            return function(*inputs)
        return checkpoint(
            function,
            *inputs,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _statistics_kept(block)),
        )

    def train(self, mode: bool = True) -> StagedBackbone:
        """Set the mode; frozen stages and, with `norm_eval`, batch norm stay in evaluation."""
        super().train(mode)
        self._freeze()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages >= 0:
            for module in (self.conv_stem, self.bn1, *self.blocks[: self.frozen_stages]):
                module.eval().requires_grad_(False)

    def init_weights(self) -> None:
        """Initialize by `init_cfg`, or as timm does for networks with depthwise convolutions."""
        if not (self.init_cfg or self.is_init):
            self.apply(_init_module)
        super().init_weights()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        own = self.state_dict(prefix=prefix)
        unbuilt = tuple(prefix + name for name in self._unbuilt)
        for key in [key for key in state_dict if key.startswith(unbuilt) and key not in own]:
            del state_dict[key]  # load_state_dict hands out a copy
        super()._load_from_state_dict(state_dict, prefix, *args)


def _shapes(
    stem_channels: int, stages: Sequence[Sequence[Row]], head_channels: int | None
) -> dict[str, tuple[int, int]]:
    """(channels, stride) of every output that a tap can name, in the network's order."""
    channels, stride = stem_channels, 2
    shapes = {"stem": (channels, stride)}
    for number, rows in enumerate(stages, 1):
        if rows[0].expand > 1:
            shapes[f"stage{number}.expansion"] = (channels * rows[0].expand, stride)
        channels, stride = rows[-1].channels, stride * rows[0].stride
        shapes[f"stage{number}"] = (channels, stride)
    if head_channels is not None:
        shapes["head"] = (head_channels, stride)
    return shapes


def _blocks(
    channels: int,
    rows: Sequence[Row],
    residual: bool,
    padding: str,
    norm_cfg: dict,
    act_cfg: dict,
) -> list[nn.Module]:
    """The blocks of one stage, whose input has `channels` channels."""
    blocks = []
    for row in rows:
        for _ in range(row.repeats):
            shape = (channels, row.channels, row.kernel_sizes, 1 if blocks else row.stride)
            common = dict(padding=padding, norm_cfg=norm_cfg, act_cfg=row.act_cfg or act_cfg)
            if row.expand == 1:
                blocks.append(DepthwiseSeparable(*shape, residual=residual, **common))
            else:
                blocks.append(
                    InvertedResidual(*shape, row.expand, row.se_ratio, row.groups, **common)
                )
            channels = row.channels
    return blocks


def _expansion(channels: int, row: Row, norm_cfg: dict, act_cfg: dict) -> Expansion:
    """The first third of a stage's first block."""
    return Expansion(
        channels,
        channels * row.expand,
        row.groups[0],
        norm_cfg=norm_cfg,
        act_cfg=row.act_cfg or act_cfg,
    )


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Leave the statistics of batch norm alone: recomputing must not count a batch twice."""
    kept = [
        (norm, norm.momentum, norm.num_batches_tracked.clone())
        for norm in block.modules()
        if isinstance(norm, _BatchNorm) and norm.training and norm.track_running_stats
    ]
    for norm, _, _ in kept:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


def _init_module(module: nn.Module) -> None:
    """He's initialization for the outputs that one input reaches: the fan-out of its group."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, (_BatchNorm, nn.GroupNorm)):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
