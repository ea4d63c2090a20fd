"""Parameters and multiply-adds of a config's detector.

A multiply and an add count as one operation ("MAdds"), as in the papers: half of what is often
called FLOPs. Convolutions and matrix products are counted, for one image at the config's size,
without post-processing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import mixdet.plugin

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mixdet.analysis.paper import TABLE_1, PaperRow
from mixdet.config.read import load_config, require
from mixdet.errors import MixDetError
from mixdet.visual.tables import text_table


class Complexity(NamedTuple):
    """What a detector costs."""

    name: str
    input_size: tuple[int, int]  # height, width in pixels
    params: int
    madds: int
    paper: PaperRow | None  # what the MixConv paper states for this config

    @property
    def off_percent(self) -> tuple[float, float] | None:
        """How far parameters and multiply-adds are above the paper's, in percent of those."""
        if self.paper is None:
            return None
        return (
            100 * (self.params / (self.paper.params_m * 1e6) - 1),
            100 * (self.madds / (self.paper.madds_b * 1e9) - 1),
        )


def complexity(config: str | Path, cfg_options: Sequence[str] = ()) -> Complexity:
    """Count the parameters and multiply-adds of a config's network.

    Args:
        config: Path of a config whose test pipeline resizes to a fixed size.
        cfg_options: `key=value` overrides of it.

    Raises:
        MixDetError: The config cannot be read, or its test pipeline has no `Resize` with a `scale`.
    """
    model, size = build(config, cfg_options)
    madds = count_madds(model, torch.zeros(1, 3, *size))
    params = sum(p.numel() for p in model.parameters())
    name = Path(config).stem
    return Complexity(
        name,
        size,
        params,
        madds,
        None if cfg_options else TABLE_1.get(name),
    )


def count_madds(network: Callable[..., object], *inputs: Tensor) -> int:
    """Count the multiply-adds of calling a network on inputs."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() // 2


def conv_madds(conv: nn.Conv2d, output: Tensor) -> int:
    """Return the multiply-adds of a convolution for all images of its output (N, C, H, W)."""
    return output.numel() * conv.weight[0].numel()


def build(config: str | Path, cfg_options: Sequence[str] = ()) -> tuple[nn.Module, tuple[int, int]]:
    """Build a config's detector for counting: in evaluation mode, without ImageNet weights.

    Args:
        config: As for `complexity`.
        cfg_options: As there.

    Returns:
        The detector, and the height and width in pixels of its images.

    Raises:
        MixDetError: As for `complexity`.
    """
    from mmdet.registry import MODELS

    cfg = load_config(str(config), cfg_options)
    require(str(config), cfg, "model", "test_dataloader")
    scales = [
        step["scale"]
        for step in cfg.test_dataloader.dataset.get("pipeline", ())
        if step["type"] == "Resize" and "scale" in step
    ]
    if not scales:
        raise MixDetError(f"{config}: the test pipeline has no Resize with a scale to count at")
    width, height = scales[0]
    return MODELS.build(cfg.model).eval(), (height, width)


def complexity_table(rows: Sequence[Complexity], markdown: bool = False) -> str:
    """Lay the counts out beside the paper's figures, where it has any."""
    header = ["config", "input", "params", "paper's", "off by", "MAdds", "paper's", "off by"]
    cells = []
    for row in rows:
        params_m, madds_b, _ = row.paper or (None,) * 3
        off_params, off_madds = row.off_percent or (None,) * 2
        cells.append(
            [
                row.name,
                "x".join(map(str, row.input_size)),
                f"{row.params:,}",
                "" if params_m is None else f"{params_m:.2f} M",
                "" if off_params is None else f"{off_params:+.2f} %",
                f"{row.madds / 1e9:.3f} B",
                "" if madds_b is None else f"{madds_b:.2f} B",
                "" if off_madds is None else f"{off_madds:+.2f} %",
            ]
        )
    return text_table(header, cells, markdown)


def complexity_record(row: Complexity) -> dict:
    """The counts as plain values, for JSON."""
    return row._asdict() | dict(
        paper=row.paper and row.paper._asdict(), off_percent=row.off_percent
    )
