"""The base class of MixNet and the MobileNets, which builds them from architecture tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mixdet.errors import MixDetError
from mixdet.models.fusing.blocks import Layer, branch_blocks, can_fold
from mixdet.models.fusing.forms import FusedForm
from mixdet.models.fusing.layout import ChannelLayout
from mixdet.models.fusing.parts import PartitionedConv2d, PerPart
from mixdet.models.layers import Conv2dSame, DepthwiseSeparable, Expansion, InvertedResidual
from mixdet.models.layers.mixconv import PADDINGS
from mixdet.models.layers.norm_act import apply_norm_act
from mixdet.models.layers.pointwise import PointwiseConv2d
from mixdet.models.torch_private import AnyBatchNorm


class Row(NamedTuple):
    """A row of an architecture table, which describes one or more equal blocks.

    Attributes:
        repeats: Number of blocks.
        kernel_sizes: Depthwise kernels, see `MixConv2d`.
        stride: Stride of the first block, if this is the first row of a stage. All other blocks
            have stride 1.
        expand_ratio: 1 makes a depthwise separable block. Any other number makes an inverted
            residual block, whose expansion multiplies the number of channels by this number.
        channels: Channels of the output.
        se_ratio: See `InvertedResidual`.
        groups: See `InvertedResidual`.
        act_cfg: Activation. None stands for the network's activation.
    """

    repeats: int
    kernel_sizes: int | Sequence[int]
    stride: int
    expand_ratio: int
    channels: int
    se_ratio: float = 0.0
    groups: tuple[int, int] = (1, 1)
    act_cfg: dict | None = None


class OutputShape(NamedTuple):
    """Channels and stride of an output.

    Attributes:
        channels: Number of channels.
        stride: Distance between neighboring cells, in pixels of the image.
    """

    channels: int
    stride: int


class Stage(nn.Sequential):
    """Blocks that run one after another.

    Attributes:
        with_cp: Compute each block again in the backward pass instead of storing its activations.
    """

    with_cp = False

    def forward(self, x: Tensor, expansions: list[Tensor] | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W').

        If `expansions` is given, the output of the first block's expansion is appended to it.
        """
        for block in self:
            x = self._run(block, x, expansions)
            expansions = None
        return x

    def _run(self, block: nn.Module, x: Tensor, expansions: list[Tensor] | None) -> Tensor:
        tapped = expansions is not None
        recompute = (
            self.with_cp
            and torch.is_grad_enabled()
            and isinstance(x, Tensor)  # torch.fx traces with proxies
            and not torch.compiler.is_compiling()
        )
        if not recompute:
            return block(x, expansions) if tapped else block(x)

        def function(x: Tensor) -> tuple[Tensor, ...]:
            taps: list[Tensor] = []  # a new list, since the backward pass calls `function` again
            return (block(x, taps) if tapped else block(x), *taps)

        y, *expanded = checkpoint(
            function,
            x,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _statistics_frozen(block)),
        )
        if tapped:
            expansions += expanded
        return y


class StagedBackbone(BaseModule):
    """A stem of stride 2, stages of blocks and an optional head. Parameters have timm's names.

    Layers that no output needs are not built. `load_state_dict` accepts the state dict of timm's
    whole network. It skips only the weights of timm's classifier and of layers that are not built.

    No inner module is a `BaseModule` of mmengine. mmengine would initialize such a module again
    after `init_cfg` was applied.

    `torch.fx.symbolic_trace`, `torch.jit.trace`, `torch.export` and `torch.compile` work with the
    network. `torch.jit.script` does not, since it supports neither the choice of a fast path nor
    lists of taps. Use `torch.jit.trace` instead.

    Attributes:
        out_channels: Number of channels of each output, in the order of the outputs.
        out_strides: Stride of each output, in pixels of the image.

    Args:
        stem_channels: Channels of the 3x3 stem.
        stages: The rows of each stage.
        head_channels: Channels of the 1x1 head convolution. None stands for no head.
        taps: Names of the outputs, in order. A name is 'stem', 'stageN' (the output of
            `blocks.(N-1)`), 'stageN.expansion' (the output of the expansion in that stage's first
            block) or 'head'. An expansion has the stride of the previous stage.
        padding: 'symmetric' or 'same'. 'same' is TensorFlow's variant: SAME padding, and an eps
            of 1e-3 in the norms, unless `norm_cfg` sets another eps.
        frozen_stages: -1 freezes nothing, 0 freezes the stem, and n freezes the stem and stages 1
            to n.
        norm_eval: Keep batch norm in evaluation mode. Training then does not change its statistics.
        with_cp: Compute each block again in the backward pass instead of storing its activations.
            `torch.compile` and `torch.export` ignore it, since they plan memory themselves.
        norm_cfg: Normalization. None stands for batch norm.
        act_cfg: Activation of the stem, the head and the rows without an activation.
        residual: See `DepthwiseSeparable`.
        init_cfg: Weight initialization. None stands for He's method, where the fan-out counts only
            the output channels of one group of a convolution.

    Raises:
        MixDetError: If a tap or a frozen stage does not exist, or the padding is unknown.
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
        shapes = _output_shapes(stem_channels, stages, head_channels)
        self.taps = self._checked_taps(taps, shapes)
        self.out_channels = tuple(shapes[tap].channels for tap in self.taps)
        self.out_strides = tuple(shapes[tap].stride for tap in self.taps)
        self.padding = padding
        self.norm_eval = norm_eval

        same = padding == "same"
        self.conv_stem = (Conv2dSame if same else nn.Conv2d)(
            3, stem_channels, 3, stride=2, padding=0 if same else 1, bias=False
        )
        self.bn1 = build_norm_layer(norm_cfg, stem_channels)[1]
        self.act1 = build_activation_layer(act_cfg)
        common = dict(padding=padding, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.blocks = _build_stages(stem_channels, stages, self.taps, residual, **common)
        for stage in self.blocks:
            stage.with_cp = with_cp
        if "head" in self.taps:
            self.conv_head = PointwiseConv2d(stages[-1][-1].channels, head_channels, 1, bias=False)
            self.bn2 = build_norm_layer(norm_cfg, head_channels)[1]
            self.act2 = build_activation_layer(act_cfg)
        elif len(self.blocks) and isinstance(self.blocks[-1][-1], DepthwiseSeparable):
            self.blocks[-1][-1].last = True

        self._unbuilt = self._unbuilt_prefixes(len(stages))
        if not (isinstance(frozen_stages, int) and -1 <= frozen_stages <= len(self.blocks)):
            raise MixDetError(
                f"model.backbone.frozen_stages={frozen_stages!r} must be a whole number from -1 to "
                f"{len(self.blocks)}, the last stage that taps={self.taps} needs"
            )
        self.frozen_stages = frozen_stages
        self._freeze()

    def _checked_taps(self, taps: Sequence[str], shapes: dict[str, OutputShape]) -> tuple[str, ...]:
        """Return the taps as a tuple.

        Raises:
            MixDetError: No tap is given, or one of the taps does not exist.
        """
        taps = (taps,) if isinstance(taps, str) or not isinstance(taps, Sequence) else tuple(taps)
        if not taps or not all(tap in [*shapes] for tap in taps):
            raise MixDetError(
                f"model.backbone.taps={taps!r} must name outputs of {type(self).__name__}, "
                f"which are: {', '.join(shapes)}"
            )
        return taps

    def _unbuilt_prefixes(self, stages: int) -> tuple[str, ...]:
        """Return the name prefixes of timm's parameters that this network has no module for."""
        ends_in_expansion = len(self.blocks) and isinstance(self.blocks[-1][0], Expansion)
        complete = len(self.blocks) - ends_in_expansion
        prefixes = ["classifier.", *(f"blocks.{index}." for index in range(complete, stages))]
        if "head" not in self.taps:
            prefixes += ["conv_head.", "bn2."]
        return tuple(prefixes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the features.

        Args:
            x: Images (N, 3, H, W).

        Returns:
            A tensor (N, out_channels, ceil(H/out_stride), ceil(W/out_stride)) for each tap.
        """
        x = apply_norm_act(self.bn1, self.act1, self.conv_stem(x), last=len(self.blocks) == 0)
        outputs = {"stem": x} if "stem" in self.taps else {}
        for number, stage in enumerate(self.blocks, 1):
            if f"stage{number}.expansion" in self.taps:
                expansions: list[Tensor] = []
                x = stage(x, expansions)
                # If the stage is only an expansion, use x, which a forward hook may have replaced
                only_expansion = isinstance(stage[-1], Expansion)
                outputs[f"stage{number}.expansion"] = x if only_expansion else expansions[0]
            else:
                x = stage(x)
            if f"stage{number}" in self.taps:
                outputs[f"stage{number}"] = x
        if "head" in self.taps:
            outputs["head"] = apply_norm_act(self.bn2, self.act2, self.conv_head(x), last=True)
        return tuple(outputs[tap] for tap in self.taps)

    def branch_blocks(self, form: FusedForm) -> None:
        """Split the blocks into branches, in place. `mixdet.models.fusing.fuse` calls this."""
        places = [(stage, index) for stage in self.blocks for index in range(len(stage))]
        whole = set() if "stem" not in self.taps and can_fold(self.bn1) else {0}
        tapped, count = set(), 0
        for number, stage in enumerate(self.blocks, 1):
            if f"stage{number}.expansion" in self.taps:
                tapped.add(count)
            count += len(stage)
            if f"stage{number}" in self.taps:
                whole.add(count)
        blocks = [stage[index] for stage, index in places]
        stem_layout, blocks = branch_blocks(blocks, whole, tapped, form)
        if stem_layout:
            stem = Layer(self.conv_stem, self.bn1, self.act1).folded()
            self.conv_stem = PartitionedConv2d(stem, ChannelLayout([stem.in_channels]), stem_layout)
            self.bn1, self.act1 = nn.Identity(), PerPart(self.act1)
        for (stage, index), block in zip(places, blocks, strict=True):
            stage[index] = block

    def train(self, mode: bool = True) -> StagedBackbone:
        """Set the mode.

        Frozen stages stay in evaluation mode. With `norm_eval`, so do all batch norms.
        """
        super().train(mode)
        self._freeze()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, AnyBatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages >= 0:
            for module in (self.conv_stem, self.bn1, *self.blocks[: self.frozen_stages]):
                module.eval().requires_grad_(False)

    def init_weights(self) -> None:
        """Initialize as `init_cfg` says. None means timm's method for depthwise networks."""
        if not (self.init_cfg or self.is_init):
            self.apply(_init_module)
        super().init_weights()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        own = self.state_dict(prefix=prefix)
        unbuilt = tuple(prefix + name for name in self._unbuilt)
        for key in [key for key in state_dict if key.startswith(unbuilt) and key not in own]:
            del state_dict[key]  # the caller's dict keeps the key, since this dict is a copy
        super()._load_from_state_dict(state_dict, prefix, *args)


def _output_shapes(
    stem_channels: int, stages: Sequence[Sequence[Row]], head_channels: int | None
) -> dict[str, OutputShape]:
    """Return the shape of every output that a tap can name, in the network's order."""
    channels, stride = stem_channels, 2
    shapes = {"stem": OutputShape(channels, stride)}
    for number, rows in enumerate(stages, 1):
        if rows[0].expand_ratio > 1:
            expanded = channels * rows[0].expand_ratio
            shapes[f"stage{number}.expansion"] = OutputShape(expanded, stride)
        channels, stride = rows[-1].channels, stride * rows[0].stride
        shapes[f"stage{number}"] = OutputShape(channels, stride)
    if head_channels is not None:
        shapes["head"] = OutputShape(head_channels, stride)
    return shapes


def _build_stages(
    channels: int,
    stages: Sequence[Sequence[Row]],
    taps: Sequence[str],
    residual: bool,
    padding: str,
    norm_cfg: dict,
    act_cfg: dict,
) -> nn.Sequential:
    """Build the stages that the taps need, behind a stem with `channels` channels."""
    last = len(stages) if "head" in taps else 0
    for number in range(1, len(stages) + 1):
        if {f"stage{number}", f"stage{number}.expansion"} & {*taps}:
            last = max(last, number)
    built = nn.Sequential()
    for number, rows in enumerate(stages[:last], 1):
        if number == last and not {"head", f"stage{number}"} & {*taps}:
            # No output needs the rest of the stage, so its weights would get no gradient
            norm_and_act = dict(norm_cfg=norm_cfg, act_cfg=rows[0].act_cfg or act_cfg)
            expanded = channels * rows[0].expand_ratio
            blocks = [Expansion(channels, expanded, rows[0].groups[0], **norm_and_act)]
        else:
            blocks = _build_blocks(channels, rows, residual, padding, norm_cfg, act_cfg)
        built.append(Stage(*blocks))
        channels = rows[-1].channels
    return built


def _build_blocks(
    channels: int,
    rows: Sequence[Row],
    residual: bool,
    padding: str,
    norm_cfg: dict,
    act_cfg: dict,
) -> list[nn.Module]:
    """Build the blocks of a stage whose input has `channels` channels."""
    blocks = []
    for row in rows:
        for _ in range(row.repeats):
            shape = (channels, row.channels, row.kernel_sizes, 1 if blocks else row.stride)
            common = dict(padding=padding, norm_cfg=norm_cfg, act_cfg=row.act_cfg or act_cfg)
            if row.expand_ratio == 1:
                block = DepthwiseSeparable(*shape, residual=residual, **common)
            else:
                ratios = row.expand_ratio, row.se_ratio
                block = InvertedResidual(*shape, *ratios, row.groups, **common)
            blocks.append(block)
            channels = row.channels
    return blocks


@contextmanager
def _statistics_frozen(block: nn.Module) -> Iterator[None]:
    """Freeze the statistics of batch norm while a block computes the same batch once more."""
    norms = [
        (norm, norm.momentum, norm.num_batches_tracked.clone())
        for norm in block.modules()
        if isinstance(norm, AnyBatchNorm) and norm.training and norm.track_running_stats
    ]
    for norm, _, _ in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, batches in norms:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


def _init_module(module: nn.Module) -> None:
    """Initialize a convolution (He, fan-out of one group) or a norm (weight 1, bias 0)."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, (AnyBatchNorm, nn.GroupNorm)):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
