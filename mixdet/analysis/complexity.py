"""Parameters and multiply-adds of a config's detector."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.utils.flop_counter import FlopCounterMode

import mixdet.plugin  # noqa: F401
from mixdet.errors import MixDetError


class Complexity(NamedTuple):
    """What a detector costs."""

    name: str
    input_size: tuple[int, int]  # height, width in pixels
    params: int
    madds: int  # multiply-adds of all convolutions and matrix products, for one picture


def complexity(config: str | Path) -> Complexity:
    """Count the parameters and multiply-adds of a config's network, without its post-processing.

    A multiply and an add count as one operation, as in the papers: half of what is often called
    FLOPs.

    Args:
        config: Path of a config whose test pipeline resizes to a fixed size.

    Raises:
        MixDetError: If the test pipeline has no `Resize` with a `scale`.
    """
    from mmdet.registry import MODELS

    cfg = Config.fromfile(config)
    init_default_scope(cfg.get("default_scope", "mmdet"))
    scales = [
        step["scale"]
        for step in cfg.test_dataloader.dataset.pipeline
        if step["type"] == "Resize" and "scale" in step
    ]
    if not scales:
        raise MixDetError(f"{config}: the test pipeline has no Resize with a scale to count at")
    width, height = scales[0]
    model = MODELS.build(cfg.model).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, height, width))
    return Complexity(
        name=Path(config).stem,
        input_size=(height, width),
        params=sum(p.numel() for p in model.parameters()),
        madds=counter.get_total_flops() // 2,
    )
