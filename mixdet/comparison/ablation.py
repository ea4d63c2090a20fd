"""Other depthwise kernels in one block at a time: the MixConv paper's figure 5, for detection.

The paper (arXiv 1907.09595) does so for classification, with MobileNetV1 and V2. Here each block
is a row of a comparison over seeds (`mixdet.comparison`), the unchanged network its
baseline.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mmdet.registry import MODELS
from torch import nn

from mixdet.comparison.folder import Comparison, Plan
from mixdet.comparison.summary import RowSummary, summarize, verdict
from mixdet.config.read import load_config
from mixdet.config.shipped import find_config
from mixdet.errors import MixDetError
from mixdet.models.layers.mixconv import DepthwiseConv2d
from mixdet.outputs import writable_folder, write_atomically
from mixdet.visual.svg import color, svg
from mixdet.visual.tables import text_table

CONFIG = '''"""{stem} with kernels {kernels} in block {block} of its backbone."""

_base_ = "{base}"

model = dict(backbone=dict(block_kernel_sizes={{{block}: {kernels}}}))
'''


class Block(NamedTuple):
    """Where a block is."""

    stage: int  # counted from 1
    stride: int


def plan_ablation(
    plan: Plan, blocks: Sequence[int], kernel_sizes: Sequence[int], folder: Path
) -> Plan:
    """Write a config for each block, and plan to compare them with the unchanged network.

    Args:
        plan: Its one config is the unchanged network.
        blocks: Numbers of blocks, from 1; see `MixMobileNetV2`.
        kernel_sizes: Kernels of the block's depthwise convolution.
        folder: Of the comparison. The configs are written into its `configs`, and name their base
            by a relative path.

    Raises:
        MixDetError: The config cannot be read, its backbone cannot do it, or it has no such block
            or kernels. Nothing has been written then.
    """
    (config,) = plan.configs
    stem, texts, configs = Path(config).stem, {}, (folder / "configs").resolve()
    _backbone(plan)
    for block in sorted(set(blocks)):
        _backbone(plan, block_kernel_sizes={block: kernel_sizes})
        name = f"{stem}_block{block:02}_{''.join(map(str, kernel_sizes))}.py"
        texts[folder / "configs" / name] = CONFIG.format(
            stem=stem,
            block=block,
            kernels=tuple(kernel_sizes),
            base=Path(os.path.relpath(find_config(config).resolve(), configs)).as_posix(),
        )
    writable_folder("--out", configs)
    for path, text in texts.items():
        write_atomically(path, text.encode())
    return replace(plan, configs=(config, *map(str, texts)))


def report_ablation(comparison: Comparison, blocks: Sequence[int]) -> str:
    """Write `ablation.md` and `ablation.svg`: the change in mAP, block by block.

    Args:
        comparison: Trained by the plan of `plan_ablation`, and reported.
        blocks: As there.

    Returns:
        The table as Markdown.
    """
    numbers = sorted(set(blocks))
    places = _blocks(_backbone(comparison.plan))
    base, *rows = summarize(comparison)
    header = ["block", "stage", "stride", "change in mAP", "more params", "more MAdds"]
    cells = [
        [
            str(number),
            str(places[number - 1].stage),
            str(places[number - 1].stride),
            verdict(row.difference),
            f"{row.cost.params - base.cost.params:+,}",
            f"{(row.cost.madds - base.cost.madds) / 1e6:+.2f} M",
        ]
        for number, row in zip(numbers, rows, strict=True)
    ]
    text = text_table(header, cells, markdown=True) + "\n"
    write_atomically(comparison.folder / "ablation.md", text.encode())
    figure = _figure(numbers, places, rows)
    write_atomically(comparison.folder / "ablation.svg", figure.encode())
    return text


def _figure(numbers: Sequence[int], places: Sequence[Block], rows: Sequence[RowSummary]) -> str:
    def draw(axes) -> None:
        for number, row in zip(numbers, rows, strict=True):
            change = row.difference
            error = None
            if math.isfinite(change.low):  # one seed has no interval
                error = [[change.mean - change.low], [change.high - change.mean]]
            axes.errorbar(number, change.mean, error, fmt="o", color=color(1), capsize=4)
        axes.axhline(0, color="#444", lw=1)
        axes.margins(0.15)
        axes.set(xticks=numbers, xlabel="block (s2: stride 2)", ylabel="change in mAP (points)")
        axes.set_xticklabels([f"{n}\ns2" if places[n - 1].stride == 2 else str(n) for n in numbers])

    return svg(draw)


def _backbone(plan: Plan, **changes) -> nn.Module:
    """Build the backbone of a plan's first config."""
    cfg = load_config(plan.configs[0], plan.cfg_options).model.get("backbone", {})
    backbone = MODELS.build({**cfg, **changes})
    if not hasattr(backbone, "block_kernel_sizes"):
        raise MixDetError(
            f"{plan.configs[0]}: {type(backbone).__name__} cannot change the kernels of one block: "
            "name a config with MixMobileNetV1 or MixMobileNetV2"
        )
    return backbone


def _blocks(backbone: nn.Module) -> list[Block]:
    """The blocks that have a depthwise convolution, in order."""
    found = []
    for stage, blocks in enumerate(backbone.blocks, 1):
        for block in blocks:
            convs = [conv for conv in block.modules() if isinstance(conv, DepthwiseConv2d)]
            found += [Block(stage, conv.stride[0]) for conv in convs[:1]]
    return found
