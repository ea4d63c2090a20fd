"""Parameters and multiply-adds of a config's detector.

A multiplication and its addition count as one operation ("MAdds"), as in the papers. Where FLOPs
are counted instead, the number is usually twice as large. Only convolutions and matrix products are
counted, for one image of the config's size and without post-processing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmdet.registry import MODELS
from mmengine.utils import to_2tuple
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mixdet.analysis.paper import TABLE_1, PaperRow
from mixdet.config.read import load_config, require
from mixdet.errors import MixDetError
from mixdet.image_size import width_x_height
from mixdet.visual.tables import text_table


class Complexity(NamedTuple):
    """Size and cost of a config's detector.

    Attributes:
        name: Name of the config.
        input_hw: (height, width) in pixels of the image that `madds` is counted for.
        params: Number of parameters.
        madds: Multiply-adds for one image.
        paper: The numbers of the MixConv paper for this config, or None.
    """

    name: str
    input_hw: tuple[int, int]
    params: int
    madds: int
    paper: PaperRow | None

    @property
    def off_percent(self) -> tuple[float, float] | None:
        """Percent by which (parameters, multiply-adds) exceed the paper's numbers.

        None if the paper has no numbers for this config.
        """
        if self.paper is None:
            return None
        return (
            100 * (self.params / (self.paper.params_m * 1e6) - 1),
            100 * (self.madds / (self.paper.madds_b * 1e9) - 1),
        )


def count_complexity(config: str | Path, cfg_options: Sequence[str] = ()) -> Complexity:
    """Count the parameters and multiply-adds of a config's network.

    Args:
        config: Path of a config whose test pipeline resizes images to a fixed size.
        cfg_options: `key=value` overrides of the config. If there are any, the result is not
            compared with the paper.

    Raises:
        MixDetError: The config cannot be read, or its test pipeline has no `Resize` with a `scale`.
    """
    model, input_hw = build_for_counting(config, cfg_options)
    name = Path(config).stem
    return Complexity(
        name=name,
        input_hw=input_hw,
        params=sum(p.numel() for p in model.parameters()),
        madds=count_madds(model, torch.zeros(1, 3, *input_hw)),
        paper=None if cfg_options else TABLE_1.get(name),
    )


def count_madds(model: nn.Module, *inputs, **kwargs) -> int:
    """Count the multiply-adds of one forward pass: half of the FLOPs that torch counts.

    Args:
        model: The network.
        *inputs: Positional arguments of the forward pass.
        **kwargs: Keyword arguments of the forward pass.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs, **kwargs)
    return counter.get_total_flops() // 2


def count_madds_by_module(model: nn.Module, *inputs, **kwargs) -> Counter[nn.Module]:
    """Count the multiply-adds of every module of a network in one forward pass.

    The count of a module includes its children, and is the sum over all calls of the module. A
    direct call of `module.forward` is counted only for the children, since torch then skips the
    hooks of the module.

    Args:
        model: The network.
        *inputs: Positional arguments of the forward pass.
        **kwargs: Keyword arguments of the forward pass.
    """
    madds: Counter[nn.Module] = Counter()

    def subtract_before(module: nn.Module, _inputs: tuple) -> None:
        madds[module] -= counter.get_total_flops() // 2

    def add_after(module: nn.Module, _inputs: tuple, _output: object) -> None:
        madds[module] += counter.get_total_flops() // 2

    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(subtract_before))
        handles.append(module.register_forward_hook(add_after))
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(*inputs, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return madds


def build_for_counting(
    config: str | Path, cfg_options: Sequence[str] = ()
) -> tuple[nn.Module, tuple[int, int]]:
    """Build a config's detector in evaluation mode, without loading pretrained weights.

    Args:
        config: See `count_complexity`.
        cfg_options: See `count_complexity`.

    Returns:
        The detector, and the (height, width) in pixels of its images.

    Raises:
        MixDetError: See `count_complexity`.
    """
    cfg = load_config(str(config), cfg_options)
    require(str(config), cfg, "model", "test_dataloader")
    scales = [
        step["scale"]
        for step in cfg.test_dataloader.dataset.get("pipeline", ())
        if step["type"] == "Resize" and "scale" in step
    ]
    if not scales:
        raise MixDetError(
            f"{config}: the size of the images is unknown, since the test pipeline has no Resize "
            "with a scale: add dict(type='Resize', scale=(width, height))"
        )
    width, height = to_2tuple(scales[0])
    return MODELS.build(cfg.model).eval(), (height, width)


def complexity_table(rows: Sequence[Complexity], markdown: bool = False) -> str:
    """Return a table of the counts and the paper's numbers. The input size is width x height."""
    header = ["config", "input", "params", "paper's", "off by", "MAdds", "paper's", "off by"]
    cells = []
    for row in rows:
        params_m, madds_b, _ = row.paper or (None,) * 3
        off_params, off_madds = row.off_percent or (None,) * 2
        cells.append(
            [
                row.name,
                width_x_height(row.input_hw[::-1]),
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
    """Return the counts as plain values for JSON."""
    return row._asdict() | dict(
        paper=row.paper and row.paper._asdict(), off_percent=row.off_percent
    )
