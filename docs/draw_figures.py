"""Draw the figures of docs/mixconv.md and docs/fusing.md: python docs/draw_figures.py"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.patches import FancyArrowPatch, Rectangle

from mixdet.analysis.stages import StageSummary, describe_stages
from mixdet.models.fusing.layout import split_by_kernel
from mixdet.models.layers import MixConv2d, split_channels
from mixdet.visual.svg import COLORS, figure_to_svg

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "figures"
KERNEL_COLORS = dict(zip((3, 5, 7, 9, 11), COLORS[1:], strict=False))


class Network(NamedTuple):
    """A classifier for ImageNet at 224 x 224, with the numbers that its authors published."""

    name: str
    madds_m: int
    top1: float
    family: str


IMAGENET = (
    Network("MixNet-S", 256, 75.8, "MixNet (arXiv 1907.09595)"),
    Network("MixNet-M", 360, 77.0, "MixNet (arXiv 1907.09595)"),
    Network("MixNet-L", 565, 78.9, "MixNet (arXiv 1907.09595)"),
    Network("V1", 569, 70.6, "MobileNetV1 (1704.04861)"),
    Network("V2", 300, 72.0, "MobileNetV2 (1801.04381)"),
    Network("V2 x1.4", 585, 74.7, "MobileNetV2 (1801.04381)"),
    Network("A1", 312, 75.2, "MnasNet (1807.11626)"),
    Network("A2", 340, 75.6, "MnasNet (1807.11626)"),
    Network("A3", 403, 76.7, "MnasNet (1807.11626)"),
    Network("FBNet-C", 375, 74.9, "FBNet (1812.03443)"),
    Network("mobile", 320, 74.6, "ProxylessNAS (1812.00332)"),
    Network("V3-L", 219, 75.2, "MobileNetV3 (1905.02244)"),
)


def draw_operator(axes) -> None:
    """Draw a MixConv of three groups: split, convolve each with its kernel, concatenate."""
    kernels = (3, 5, 7)
    channels = split_channels(24, len(kernels))
    axes.set(xlim=(0, 11.7), ylim=(-0.9, 7.2), aspect="equal")
    axes.axis("off")
    cell = 0.26
    for left in (0.3, 9.7):  # the input tensor and the output tensor
        axes.add_patch(Rectangle((left, 0.05), 1.75, 6.95, fc="#f3f3f6", ec="#bbb", lw=0.8))
    for kernel, count, low in zip(kernels, channels, (5.0, 2.5, 0.0), strict=True):
        color, middle = KERNEL_COLORS[kernel], low + 1
        for left in (0.5, 9.9):  # the channels of the group in the input and in the output
            for plane in range(4):
                corner = (left + 0.1 * plane, low + 0.25 + 0.1 * plane)
                axes.add_patch(Rectangle(corner, 1.0, 1.0, fc="w", ec=color, lw=1.2))
        start = 5.4 - kernel * cell / 2
        for row in range(kernel):
            for column in range(kernel):
                corner = (start + column * cell, middle - kernel * cell / 2 + row * cell)
                axes.add_patch(Rectangle(corner, cell, cell, fc=color, ec="w", lw=0.8, alpha=0.85))
        for left, right in ((2.1, start - 0.15), (5.4 + kernel * cell / 2 + 0.15, 9.7)):
            axes.add_patch(
                FancyArrowPatch((left, middle), (right, middle), arrowstyle="-|>",
                                mutation_scale=12, color="#555", shrinkA=0, shrinkB=0)
            )  # fmt: skip
        axes.text(2.95, middle + 0.12, f"{count} channels", ha="center", fontsize=9)
        axes.text(
            7.9,
            middle + 0.12,
            f"{kernel}x{kernel} depthwise",
            ha="center",
            color=color,
            fontsize=9,
        )
    names = ((1.15, "(N, 24, H, W)\nsplit"), (5.4, "a kernel for each group"))
    for x, text in (*names, (10.55, "(N, 24, H, W)\nconcatenated")):
        axes.text(x, -0.15, text, ha="center", va="top", fontsize=9)


def draw_fusing(axes) -> None:
    """Draw a block before and after `fuse`, with the numbers of channels below each tensor."""
    kernels, channels, widened = (3, 5, 7), 16, 96
    parts = split_by_kernel(MixConv2d(widened, kernels).merged_kernel_sizes()).sizes
    rows = (2.2, 1.1, 0.0)

    def box(panel, x: float, y: float, text: str, color: str = "#555", height: float = 0.8):
        corner = (x - 0.75, y - height / 2)
        panel.add_patch(Rectangle(corner, 1.5, height, fc="w", ec=color, lw=1.4))
        panel.text(x, y, text, ha="center", va="center", fontsize=8, color=color)

    def arrow(panel, start: tuple[float, float], end: tuple[float, float]):
        panel.add_patch(
            FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color="#777",
                            shrinkA=0, shrinkB=0)
        )  # fmt: skip

    before, after = axes
    for panel, title in ((before, "as trained"), (after, "fused: branches")):
        panel.set(xlim=(-1.8, 10.2), ylim=(-1.4, 3.3), aspect="equal")
        panel.axis("off")
        panel.set_title(title, fontsize=10, loc="left")
    for x, text in ((0, f"1x1 conv\n{channels} to {widened}"), (2, "split"), (6, "concat"),
                    (8, f"1x1 conv\n{widened} to {channels}")):  # fmt: skip
        box(before, x, rows[1], text, height=1.2)
    for x, end in ((0.75, 1.25), (6.75, 7.25)):
        arrow(before, (x, rows[1]), (end, rows[1]))
    for kernel, part, y in zip(kernels, parts, rows, strict=True):
        color = KERNEL_COLORS[kernel]
        for panel in axes:
            box(panel, 4, y, f"{kernel}x{kernel}, {part} ch.", color)
        arrow(before, (2.75, rows[1]), (3.25, y))
        arrow(before, (4.75, y), (5.25, rows[1]))
        box(after, 1.5, y, f"1x1, {channels} to {part}", color)
        box(after, 6.5, y, f"1x1, {part} to {channels}", color)
        arrow(after, (-0.2, rows[1]), (0.75, y))
        arrow(after, (2.25, y), (3.25, y))
        arrow(after, (4.75, y), (5.75, y))
        arrow(after, (7.25, y), (8.9, rows[1]))
    arrow(before, (8.75, rows[1]), (9.4, rows[1]))
    arrow(before, (-1.4, rows[1]), (-0.75, rows[1]))
    for panel, start, end in ((before, -1.2, 9.6), (after, -0.2, 9.1)):
        panel.text(end, rows[1], "+", ha="center", va="center", fontsize=15)
        panel.plot([start, start, end], [rows[1], 3.1, 3.1], color="#777", lw=1)  # the shortcut
        arrow(panel, (end, 3.1), (end, rows[1] + 0.2))
    narrow, widened_layout = f"[{channels}]", f"[{widened}]"
    split = f"[{', '.join(map(str, parts))}]"
    for panel, names in (
        (
            before,
            ((-1.2, narrow), (1, widened_layout), (4, split), (7, widened_layout), (9.6, narrow)),
        ),
        (after, ((-0.2, narrow), (2.75, split), (5.25, split), (9.1, narrow))),
    ):
        for x, text in names:
            panel.text(x, -1.1, text, ha="center", fontsize=8, family="monospace", color="#333")


def draw_networks(axes, networks: Sequence[tuple[str, Sequence[StageSummary]]]) -> None:
    """Draw each backbone, with one bar per block or series of equal blocks.

    The length of a bar is the number of depthwise channels. The colors are the kernel sizes.
    """
    for panel, (name, rows) in zip(axes, networks, strict=True):
        widest = max(sum(channels for _, channels in row.kernels) for row in rows)
        for line, row in enumerate(rows):
            left = 0
            for kernel, channels in row.kernels:
                panel.barh(line, channels, left=left, height=0.62, color=KERNEL_COLORS[kernel])
                left += channels
            if not row.kernels:  # the head's 1x1 convolution
                panel.text(0, line, " 1x1", va="center", fontsize=7, color="#555")
            notes = [f"expand {row.expansion}" if row.expansion else ""]
            notes += [f"SE {row.se_ratio:g}" if row.se_ratio else "", row.activation or ""]
            notes += ["x".join(map(str, row.resolution))]
            text = " · ".join(filter(None, notes))
            panel.text(widest * 1.04, line, text, va="center", fontsize=7, color="#333")
        names = [
            row.name if row.blocks == 1 else f"{row.name}, {row.blocks} blocks" for row in rows
        ]
        panel.set(yticks=range(len(rows)), xlabel="depthwise channels", xlim=(0, widest * 1.75))
        panel.set_yticklabels(names, fontsize=8)
        panel.set_title(name, fontsize=11)
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.grid(visible=False)
        panel.set_xticks([tick for tick in panel.get_xticks() if tick <= widest])
    handles = [Rectangle((0, 0), 1, 1, color=color) for color in KERNEL_COLORS.values()]
    labels = [f"{kernel}x{kernel}" for kernel in KERNEL_COLORS]
    axes[0].figure.legend(
        handles, labels, ncols=len(labels), loc="outside lower center", fontsize=8
    )


def draw_imagenet(axes) -> None:
    """Draw top-1 accuracy over multiply-adds. A line joins the networks of a family."""
    families = list(dict.fromkeys(network.family for network in IMAGENET))
    for index, family in enumerate(families):
        points = [network for network in IMAGENET if network.family == family]
        x, y = zip(*((point.madds_m, point.top1) for point in points), strict=True)
        color, width = ("#D55E00", 2.2) if index == 0 else (COLORS[(index + 7) % 13], 1)
        axes.plot(x, y, "o-", color=color, lw=width, label=family)
        for point in points:
            offset = (5, -11) if index else (-20, 7)
            axes.annotate(point.name, (point.madds_m, point.top1), offset,
                          textcoords="offset points", fontsize=7, color=color)  # fmt: skip
    axes.set(xlabel="multiply-adds at 224 x 224 (millions)", ylabel="ImageNet top-1 (%)")
    axes.set_title("the papers' numbers, not measured here", fontsize=9)
    axes.margins(0.1)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def backbone(config: str) -> list[StageSummary]:
    """Return the parts of a config's backbone."""
    parts = describe_stages(ROOT / "configs" / config)
    return [part for part in parts if part.name in ("stem", "head") or part.name[:5] == "stage"]


def main() -> None:
    networks = [
        (f"MixNet-{arch.upper()}", backbone(f"ssdlite_mixnet_{arch}_coco.py")) for arch in "sm"
    ]
    drawings = {
        "mixconv": figure_to_svg(draw_operator, (7.6, 4.6)),
        "mixnets": figure_to_svg(lambda axes: draw_networks(axes, networks), (11.5, 5.4), ncols=2),
        "fusing": figure_to_svg(draw_fusing, (7.6, 6.0), nrows=2),
        "imagenet": figure_to_svg(draw_imagenet, (7.6, 4.2)),
    }
    FIGURES.mkdir(exist_ok=True)
    for name, drawing in drawings.items():
        (FIGURES / f"{name}.svg").write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main()
