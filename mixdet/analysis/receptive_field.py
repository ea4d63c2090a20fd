"""Effective receptive fields: how far around a cell a detector really looks.

The gradient of a level's center cell with respect to the input, averaged over images (Luo et al.,
NeurIPS 2016, arXiv 1701.04128): what a cell could see is a large square, what it does see is a blob
in its middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.patches import Rectangle
from mmdet.registry import DATASETS, MODELS
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from torch import nn

from mixdet.compat.checkpoint import load
from mixdet.config.data_paths import check_data
from mixdet.config.read import load_config
from mixdet.errors import MixDetError
from mixdet.models.weights import load_weights
from mixdet.visual.svg import color, svg
from mixdet.visual.tables import text_table

SHARES = (0.5, 0.95)


@dataclass(frozen=True)
class ReceptiveField:
    """Where a level's center cell looks.

    Attributes:
        name: Of the config.
        stride: Pixels between two cells of the level.
        weight: (H, W), the share that each pixel has in the gradient; they sum up to 1.
        trained: Whether the weights are a checkpoint's.
        images: How many it is the mean of.
    """

    name: str
    stride: float
    weight: np.ndarray
    trained: bool
    images: int

    @property
    def center(self) -> tuple[float, float]:
        """(row, column) of the center of mass, in pixels; padding decides where a cell looks."""
        rows, columns = (np.arange(size) + 0.5 for size in self.weight.shape)
        return self.weight.sum(1) @ rows, self.weight.sum(0) @ columns

    def within(self) -> np.ndarray:
        """Shares of the gradient in squares around the center with half a side of 1, 2, ... pixels.

        A pixel belongs to a square if its middle does.
        """
        rows, columns = (
            np.abs(np.arange(size) + 0.5 - middle)
            for size, middle in zip(self.weight.shape, self.center, strict=True)
        )
        distance = np.ceil(np.maximum(rows[:, None], columns)).astype(int)
        return np.bincount(distance.ravel(), self.weight.ravel()).cumsum()[1:]

    def side(self, share: float) -> int:
        """Side in pixels of the smallest square around the center that holds a share."""
        return 2 * (int(np.searchsorted(self.within(), share)) + 1)


def receptive_field(
    config: str | Path,
    checkpoint: str | Path | None = None,
    *,
    level: int = 0,
    images: int = 50,
    data_root: str | None = None,
    seed: int = 0,
) -> ReceptiveField:
    """Measure a detector's effective receptive field on its validation images.

    Args:
        config: Path of the config.
        checkpoint: Trained weights; without them they are drawn at random.
        level: Of the feature maps that the head is given, the finest first.
        images: How many to average over: the first of the validation set.
        data_root: Another folder for the data set.
        seed: Of the weights where there is no checkpoint.

    Raises:
        MixDetError: There is no such level, a file is missing or does not fit.
    """
    cfg = load_config(str(config), data_root=data_root)
    check_data(cfg, ("val_dataloader",))
    init_default_scope("mmdet")
    set_random_seed(seed)
    if checkpoint is None:
        cfg.model.backbone.pop("init_cfg", None)  # ImageNet's would be trained weights
    model = MODELS.build(cfg.model)
    if checkpoint is None:
        model.init_weights()
    else:
        load_weights(model, load(str(checkpoint), map_location="cpu"), checkpoint)
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    counted = min(images, len(dataset))
    if counted < 1:
        raise MixDetError(f"{config}: no validation image to look at")
    model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    found = [_gradient(model, pseudo_collate([dataset[i]]), level) for i in range(counted)]
    shapes = {(weight.shape, grid) for weight, grid in found}
    if len(shapes) > 1:
        raise MixDetError(f"{config}: images of several sizes; its pipeline must resize to one")
    ((size, grid),) = shapes
    total = sum(weight for weight, _ in found)
    return ReceptiveField(
        name=Path(config).stem,
        stride=size[0] / grid[0],
        weight=total / total.sum(),
        trained=checkpoint is not None,
        images=counted,
    )


def _gradient(model: nn.Module, batch: dict, level: int) -> tuple[np.ndarray, tuple[int, int]]:
    """|d (the center cell's sum of channels) / d input|, (H, W), and the level's grid."""
    inputs = model.data_preprocessor(batch)["inputs"]
    inputs = inputs.contiguous(memory_format=torch.channels_last).requires_grad_()
    levels = model.extract_feat(inputs)
    if not 0 <= level < len(levels):
        raise MixDetError(f"--level {level}: the levels are 0 to {len(levels) - 1}")
    rows, columns = levels[level].shape[-2:]
    (gradient,) = torch.autograd.grad(levels[level][0, :, rows // 2, columns // 2].sum(), inputs)
    return gradient[0].abs().sum(0).double().numpy(), (rows, columns)


def receptive_field_table(fields: Sequence[ReceptiveField]) -> str:
    """The sides of the squares that hold half and nearly all of the gradient."""
    header = ["config", "weights", "stride", *[f"{100 * share:.0f} % within" for share in SHARES]]
    cells = [
        [
            field.name,
            "trained" if field.trained else "untrained",
            f"{field.stride:g}",
            *[f"{field.side(share)} x {field.side(share)}" for share in SHARES],
        ]
        for field in fields
    ]
    return text_table(header, cells)


def receptive_field_figure(fields: Sequence[ReceptiveField]) -> str:
    """The fields side by side, in one scale of colors, and their growth with distance, as SVG."""
    peak = max(field.weight.max() for field in fields)

    def draw(axes) -> None:
        *maps, growth = axes
        for index, (field, place) in enumerate(zip(fields, maps, strict=True)):
            # the square root shows the faint rim too; a pixel's share has no unit to read off
            place.imshow(np.sqrt(field.weight / peak), cmap="magma", vmin=0, vmax=1)
            for share, style in zip(SHARES, ("-", ":"), strict=True):
                side = field.side(share)
                corner = (field.center[1] - side / 2 - 0.5, field.center[0] - side / 2 - 0.5)
                place.add_patch(Rectangle(corner, side, side, fill=False, ec="w", ls=style))
            weights = "" if field.trained else ", untrained"
            sides = " and ".join(str(field.side(share)) for share in SHARES)
            place.set_title(f"{field.name}{weights}\n50 and 95 % in {sides} pixels", fontsize=8)
            place.set(xticks=[], yticks=[])
            place.grid(visible=False)
            within = field.within()
            sides = 2 * np.arange(1, len(within) + 1)
            growth.plot(sides, 100 * within, color=color(index), label=field.name)
        growth.set(
            xlabel="side of the square (pixels)", ylabel="gradient within (%)", ylim=(0, 102)
        )
        growth.legend(fontsize=7, loc="lower right")

    size = (2.6 * len(fields) + 3.6, 3.1)
    return svg(draw, size, ncols=len(fields) + 1, width_ratios=[*[1] * len(fields), 1.3])
