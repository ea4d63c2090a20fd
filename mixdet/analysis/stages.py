"""A detector part by part: blocks, added levels, predictors, and what each costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from mixdet.analysis.complexity import build
from mixdet.analysis.tables import text_table
from mixdet.models import MixConvSSDHead
from mixdet.models.backbones.base import StagedBackbone
from mixdet.models.layers import Expansion, InvertedResidual, SqueezeExcite


class Stage(NamedTuple):
    """A part of a detector, or equal ones in a row."""

    name: str
    blocks: int
    kernels: list[tuple[int, int]]  # size and channels of each group, the 1x1 ones left out
    expansion: int | None  # of the channels, by an inverted residual block
    se_ratio: float | None  # channels of squeeze-excite, a share of the block's input
    activation: str | None
    resolution: tuple[int, int]  # height, width of the output in cells
    params: int  # of all blocks
    madds: int  # as in `complexity`


def stages(config: str | Path, cfg_options: Sequence[str] = ()) -> list[Stage]:
    """Describe a config's network part by part.

    A backbone, neck or head of another kind than SSDLite's is one part without a description.

    Args:
        config: As for `complexity`.
        cfg_options: As there.

    Returns:
        The parts in their order; they sum up to `complexity`.

    Raises:
        MixDetError: As for `complexity`.
    """
    model, size = build(config, cfg_options)
    seen: dict[nn.Conv2d, tuple[tuple[int, int], int]] = {}  # grid and MAdds; latest call last

    def note(conv: nn.Conv2d, _, output: torch.Tensor) -> None:
        _, before = seen.pop(conv, (None, 0))  # some heads are shared by all levels
        seen[conv] = tuple(output.shape[-2:]), before + output.numel() * conv.weight[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        model(torch.zeros(1, 3, *size))

    found: list[Stage] = []
    for name, part in _parts(model):
        inside = set(part.modules())
        calls = [call for conv, call in seen.items() if conv in inside]
        stage = Stage(
            name,
            1,
            *(([], None, None, None) if part in model.children() else _description(part)),
            resolution=calls[-1][0],
            params=sum(p.numel() for p in part.parameters()),
            madds=sum(madds for _, madds in calls),
        )
        if found and found[-1]._replace(blocks=1, params=0, madds=0) == stage._replace(
            params=0, madds=0
        ):
            last = found.pop()
            stage = stage._replace(
                blocks=last.blocks + 1,
                params=last.params + stage.params,
                madds=last.madds + stage.madds,
            )
        found.append(stage)
    return found


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every part with parameters, and a name for it."""
    from mmdet.models.necks import SSDNeck  # after mixdet.plugin, which `complexity` imports

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


def _description(
    part: nn.Module,
) -> tuple[list[tuple[int, int]], int | None, float | None, str | None]:
    """Kernels, expansion, squeeze-excite and activation of a block or the like."""
    convs = [m for m in part.modules() if isinstance(m, nn.Conv2d)]
    kernels = [(m.kernel_size[0], m.out_channels) for m in convs if m.kernel_size[0] > 1]
    activations = (m for m in part.modules() if type(m).__module__ == nn.ReLU.__module__)
    activation = type(next(activations)).__name__
    expansion = se_ratio = None
    if isinstance(part, (Expansion, InvertedResidual)):
        inputs, outputs = (
            sum(getattr(m, key) for m in part.conv_pw.modules() if isinstance(m, nn.Conv2d))
            for key in ("in_channels", "out_channels")
        )
        expansion = outputs // inputs
        if isinstance(part, InvertedResidual) and isinstance(part.se, SqueezeExcite):
            se_ratio = part.se.conv_reduce.out_channels / inputs
    return kernels, expansion, se_ratio, activation


def stages_table(rows: Sequence[Stage], markdown: bool = False) -> str:
    """Lay the parts out, with their sum as the last row."""
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
            "x".join(map(str, row.resolution)),
            f"{row.params:,}",
            f"{row.madds / 1e6:.1f} M",
        ]
        for row in rows
    ]
    params, madds = sum(row.params for row in rows), sum(row.madds for row in rows)
    cells.append(["sum", *[""] * 6, f"{params:,}", f"{madds / 1e6:.1f} M"])
    return text_table(header, cells, markdown)
