"""Describe the parts of a detector (stem, blocks, added levels, predictors) and their costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmdet.models.necks import SSDNeck
from torch import nn

from mixdet.analysis.complexity import build_for_counting, count_madds_by_module
from mixdet.image_size import width_x_height
from mixdet.models import MixConvSSDHead
from mixdet.models.backbones.base import StagedBackbone
from mixdet.models.layers import Expansion, InvertedResidual, SqueezeExcite
from mixdet.visual.tables import text_table


class StageSummary(NamedTuple):
    """A part of a detector, or several consecutive parts that are equal except for their costs.

    Attributes:
        name: Name of the part, such as `stem` or `stage3`.
        blocks: Number of parts that this summary describes.
        kernels: (kernel size, output channels) of each convolution larger than 1x1.
        expansion: Expansion ratio of an inverted residual block, or None.
        se_ratio: Channels of the squeeze-excite divided by the input channels of the block, or
            None.
        activation: Class name of the activation, or None.
        resolution: (height, width) of the output in cells.
        params: Parameters of all these parts together.
        madds: Multiply-adds of all these parts together for one image.
    """

    name: str
    blocks: int
    kernels: list[tuple[int, int]]
    expansion: int | None
    se_ratio: float | None
    activation: str | None
    resolution: tuple[int, int]
    params: int
    madds: int

    def merge(self, following: StageSummary) -> StageSummary | None:
        """Merge this part with the next. Return None if they differ in more than their costs."""
        without_cost = self._replace(blocks=0, params=0, madds=0)
        if without_cost != following._replace(blocks=0, params=0, madds=0):
            return None
        return self._replace(
            blocks=self.blocks + following.blocks,
            params=self.params + following.params,
            madds=self.madds + following.madds,
        )


def describe_stages(config: str | Path, cfg_options: Sequence[str] = ()) -> list[StageSummary]:
    """Describe a config's network part by part.

    A `StagedBackbone`, an `SSDNeck` and a `MixConvSSDHead` are split into parts. Another backbone,
    neck or head is a single part. Its kernels, expansion, squeeze-excite and activation stay empty.

    Args:
        config: See `count_complexity`.
        cfg_options: See `count_complexity`.

    Returns:
        The parts in the order of the network. The sums of their parameters and multiply-adds equal
        the results of `count_complexity`.

    Raises:
        MixDetError: See `count_complexity`.
    """
    model, input_hw = build_for_counting(config, cfg_options)
    # Output size of each convolution. A convolution that is called again moves to the end of the
    # dict, so the last entry of a part is the output size of the part.
    resolutions: dict[nn.Conv2d, tuple[int, int]] = {}

    def note_resolution(conv: nn.Conv2d, _inputs: tuple, output: torch.Tensor) -> None:
        resolutions.pop(conv, None)
        resolutions[conv] = tuple(output.shape[-2:])

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note_resolution)
    madds = count_madds_by_module(model, torch.zeros(1, 3, *input_hw))

    def madds_of(part: nn.Module) -> int:
        return madds[part] if part in madds else sum(map(madds_of, part.children()))

    stages: list[StageSummary] = []
    for name, part in _parts(model):
        inside = set(part.modules())
        stage = StageSummary(
            name,
            1,
            *(([], None, None, None) if part in model.children() else _describe_block(part)),
            resolution=[size for conv, size in resolutions.items() if conv in inside][-1],
            params=sum(p.numel() for p in part.parameters()),
            madds=madds_of(part),
        )
        merged = stages[-1].merge(stage) if stages else None
        if merged:
            stages[-1] = merged
        else:
            stages.append(stage)
    return stages


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every part of a detector that has parameters, and its name."""
    for name, child in model.named_children():
        if isinstance(child, StagedBackbone):
            yield "stem", nn.Sequential(child.conv_stem, child.bn1, child.act1)
            for number, stage in enumerate(child.blocks, 1):
                for block in stage:
                    yield f"stage{number}", block
            if "head" in child.taps:
                yield "head", nn.Sequential(child.conv_head, child.bn2, child.act2)
        elif isinstance(child, SSDNeck):
            for layer in child.extra_layers:
                yield "added level", layer
        elif isinstance(child, MixConvSSDHead):
            for layer in child.cls_convs:
                yield "classes", layer
            for layer in child.reg_convs:
                yield "boxes", layer
        elif any(True for _ in child.parameters()):
            yield name, child


def _describe_block(
    part: nn.Module,
) -> tuple[list[tuple[int, int]], int | None, float | None, str | None]:
    """Return `kernels`, `expansion`, `se_ratio` and `activation`. See `StageSummary`."""
    convs = [m for m in part.modules() if isinstance(m, nn.Conv2d)]
    kernels = [(m.kernel_size[0], m.out_channels) for m in convs if m.kernel_size[0] > 1]
    activations = (m for m in part.modules() if type(m).__module__ == nn.ReLU.__module__)
    activation = type(next(activations)).__name__
    expansion = se_ratio = None
    if isinstance(part, (Expansion, InvertedResidual)):
        pointwise = [m for m in part.conv_pw.modules() if isinstance(m, nn.Conv2d)]
        inputs = sum(conv.in_channels for conv in pointwise)
        expansion = sum(conv.out_channels for conv in pointwise) // inputs
        if isinstance(part, InvertedResidual) and isinstance(part.se, SqueezeExcite):
            se_ratio = part.se.conv_reduce.out_channels / inputs
    return kernels, expansion, se_ratio, activation


def stages_table(rows: Sequence[StageSummary], markdown: bool = False) -> str:
    """Return the parts as a table. Output sizes are width x height. The last row is the sum."""
    header = ["part", "blocks", "kernels: channels", "expansion", "squeeze-excite", "activation"]
    header += ["output", "params", "MAdds"]
    cells = [
        [
            row.name,
            str(row.blocks),
            ", ".join(f"{size}: {channels}" for size, channels in row.kernels),
            f"{row.expansion or ''}",
            f"{row.se_ratio:.2g}" if row.se_ratio else "",
            row.activation or "",
            width_x_height(row.resolution[::-1]),
            f"{row.params:,}",
            f"{row.madds / 1e6:.1f} M",
        ]
        for row in rows
    ]
    params, madds = sum(row.params for row in rows), sum(row.madds for row in rows)
    cells.append(["sum", *[""] * 6, f"{params:,}", f"{madds / 1e6:.1f} M"])
    return text_table(header, cells, markdown)
