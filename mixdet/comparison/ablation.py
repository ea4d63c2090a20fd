"""Change the depthwise kernels of one block at a time, and compare with the unchanged network.

The MixConv paper does this for classification with MobileNetV1 and V2 (arXiv 1907.09595,
figure 5). This module does it for detection. It writes a config for each changed network. These
configs are compared over several seeds, with the unchanged network as baseline.
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

from mixdet.comparison.comparison_folder import Comparison, Plan
from mixdet.comparison.row_summary import RowSummary, describe_difference, summarize_rows
from mixdet.config.read import load_config
from mixdet.config.shipped import find_config
from mixdet.errors import MixDetError
from mixdet.models.layers.mixconv import DepthwiseConv2d
from mixdet.outputs import writable_folder, write_atomically
from mixdet.visual.svg import figure_to_svg, series_color
from mixdet.visual.tables import text_table

CONFIG_TEMPLATE = '''"""{stem} with kernels {kernels} in block {block} of its backbone."""

_base_ = "{base}"

model = dict(backbone=dict(block_kernel_sizes={{{block}: {kernels}}}))
'''


class BlockPosition(NamedTuple):
    """The position of a block in a backbone.

    Attributes:
        stage: Number of the stage, counted from 1.
        stride: Stride of the block.
    """

    stage: int
    stride: int


def plan_ablation(
    plan: Plan, blocks: Sequence[int], kernel_sizes: Sequence[int], folder: Path
) -> Plan:
    """Write a config for each block. Return a plan that compares them with the unchanged config.

    Args:
        plan: A plan with one config, the unchanged network.
        blocks: Numbers of the blocks, counted from 1; see `MixMobileNetV2`.
        kernel_sizes: New kernel sizes of the depthwise convolution in each block.
        folder: Folder of the comparison. The configs are written into its subfolder `configs`. They
            name their base config by a relative path.

    Raises:
        MixDetError: The config cannot be read, or its backbone cannot change the kernels of one
            block, lacks one of the blocks, or refuses the kernel sizes. No file is then written.
    """
    (config,) = plan.configs
    stem, texts, configs = Path(config).stem, {}, (folder / "configs").resolve()
    _build_backbone(plan)  # raises if the backbone cannot change the kernels of one block
    for block in sorted(set(blocks)):
        _build_backbone(plan, block_kernel_sizes={block: kernel_sizes})
        name = f"{stem}_block{block:02}_{''.join(map(str, kernel_sizes))}.py"
        texts[folder / "configs" / name] = CONFIG_TEMPLATE.format(
            stem=stem,
            block=block,
            kernels=tuple(kernel_sizes),
            base=Path(os.path.relpath(find_config(config).resolve(), configs)).as_posix(),
        )
    writable_folder("--out", configs)
    for path, text in texts.items():
        write_atomically(path, text.encode())
    return replace(plan, configs=(config, *map(str, texts)))


def write_ablation_report(comparison: Comparison, blocks: Sequence[int]) -> str:
    """Write `ablation.md` and `ablation.svg`: how each changed block changes the mAP.

    Args:
        comparison: A comparison trained with the plan of `plan_ablation`. `write_report` must have
            measured its rows.
        blocks: The blocks that were given to `plan_ablation`.

    Returns:
        The table as Markdown.
    """
    numbers = sorted(set(blocks))
    positions = _block_positions(_build_backbone(comparison.plan))
    baseline, *rows = summarize_rows(comparison)
    header = ["block", "stage", "stride", "change in mAP", "added params", "added MAdds"]
    cells = [
        [
            str(number),
            str(positions[number - 1].stage),
            str(positions[number - 1].stride),
            describe_difference(row.difference),
            f"{row.cost.params - baseline.cost.params:+,}",
            f"{(row.cost.madds - baseline.cost.madds) / 1e6:+.2f} M",
        ]
        for number, row in zip(numbers, rows, strict=True)
    ]
    markdown = text_table(header, cells, markdown=True) + "\n"
    write_atomically(comparison.folder / "ablation.md", markdown.encode())
    figure = _draw_changes(numbers, positions, rows)
    write_atomically(comparison.folder / "ablation.svg", figure.encode())
    return markdown


def _draw_changes(
    numbers: Sequence[int], positions: Sequence[BlockPosition], rows: Sequence[RowSummary]
) -> str:
    def draw(axes) -> None:
        for number, row in zip(numbers, rows, strict=True):
            change = row.difference
            bars = None
            if math.isfinite(change.low):  # with one seed, the interval is unbounded
                bars = [[change.mean - change.low], [change.high - change.mean]]
            axes.errorbar(number, change.mean, bars, fmt="o", color=series_color(1), capsize=4)
        axes.axhline(0, color="#444", lw=1)
        axes.margins(0.15)
        axes.set(xticks=numbers, xlabel="block (s2: stride 2)", ylabel="change in mAP (points)")
        axes.set_xticklabels(
            [f"{n}\ns2" if positions[n - 1].stride == 2 else str(n) for n in numbers]
        )

    return figure_to_svg(draw)


def _build_backbone(plan: Plan, **changes) -> nn.Module:
    """Build the backbone of a plan's first config, with changed arguments."""
    cfg = load_config(plan.configs[0], plan.cfg_options).model.get("backbone", {})
    backbone = MODELS.build({**cfg, **changes})
    if not hasattr(backbone, "block_kernel_sizes"):
        raise MixDetError(
            f"{plan.configs[0]}: {type(backbone).__name__} cannot change the kernels of one block: "
            "name a config with MixMobileNetV1 or MixMobileNetV2"
        )
    return backbone


def _block_positions(backbone: nn.Module) -> list[BlockPosition]:
    """Return the position of every block that has a depthwise convolution, in network order."""
    positions = []
    for stage, blocks in enumerate(backbone.blocks, 1):
        for block in blocks:
            convs = [conv for conv in block.modules() if isinstance(conv, DepthwiseConv2d)]
            positions += [BlockPosition(stage, conv.stride[0]) for conv in convs[:1]]
    return positions
