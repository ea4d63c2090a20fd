"""Effective receptive fields: how strongly each input pixel influences a cell of a feature map.

A level is one of the feature maps that the head reads. The influence is the gradient of a level's
center cell with respect to the input, averaged over images (Luo et al., NeurIPS 2016,
arXiv 1701.04128).
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
from mixdet.visual.svg import figure_to_svg, series_color
from mixdet.visual.tables import text_table

# For each fraction, the smallest square that holds this fraction of the gradient is shown.
FRACTIONS = (0.5, 0.95)


@dataclass(frozen=True)
class ReceptiveField:
    """The effective receptive field of a level's center cell.

    Attributes:
        name: Name of the config.
        stride: Pixels between two rows of cells of the level.
        weight: (H, W) fraction of the gradient for each input pixel. The sum is 1.
        trained: Whether the weights come from a checkpoint.
        images: Number of images that the gradient is averaged over.
    """

    name: str
    stride: float
    weight: np.ndarray
    trained: bool
    images: int

    @property
    def center(self) -> tuple[float, float]:
        """(row, column) of the center of mass of `weight`, in pixels."""
        rows, columns = (np.arange(size) + 0.5 for size in self.weight.shape)
        return self.weight.sum(1) @ rows, self.weight.sum(0) @ columns

    def within(self) -> np.ndarray:
        """Return the fraction of the gradient inside squares of growing size around the center.

        Entry i belongs to the square that extends i + 1 pixels to each side of the center. A pixel
        belongs to a square if the middle of the pixel is inside.
        """
        rows, columns = (
            np.abs(np.arange(size) + 0.5 - middle)
            for size, middle in zip(self.weight.shape, self.center, strict=True)
        )
        distance = np.ceil(np.maximum(rows[:, None], columns)).astype(int)
        return np.bincount(distance.ravel(), self.weight.ravel()).cumsum()[1:]

    def side(self, fraction: float) -> int:
        """Return the side in pixels of the smallest square that holds a fraction of the gradient.

        Args:
            fraction: From 0 to 1.
        """
        return 2 * (int(np.searchsorted(self.within(), fraction)) + 1)


def measure_receptive_field(
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
        checkpoint: Trained weights, or None for random weights.
        level: Index of the feature map in the inputs of the head; 0 is the finest.
        images: Number of images that the gradient is averaged over. The first images of the
            validation set are used.
        data_root: Folder to use instead of the config's data folder, or None.
        seed: Seed of the random weights.

    Raises:
        MixDetError: The level does not exist, a file is missing, the checkpoint does not fit the
            config, or the pipeline does not resize all images to one size.
    """
    cfg = load_config(str(config), data_root=data_root)
    check_data(cfg, ("val_dataloader",))
    init_default_scope("mmdet")
    set_random_seed(seed)
    if checkpoint is None:
        cfg.model.backbone.pop("init_cfg", None)  # might load weights trained on ImageNet
    model = MODELS.build(cfg.model)
    if checkpoint is None:
        model.init_weights()
    else:
        load_weights(model, load(str(checkpoint), map_location="cpu"), checkpoint)
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    count = min(images, len(dataset))
    if count < 1:
        raise MixDetError(f"{config}: the validation set has no image")
    model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    gradients = [
        center_cell_gradient(model, pseudo_collate([dataset[i]]), level) for i in range(count)
    ]
    sizes = {(gradient.shape, grid_hw) for gradient, grid_hw in gradients}
    if len(sizes) > 1:
        raise MixDetError(
            f"{config}: the validation images have several sizes: resize them to one size in the "
            "pipeline, with dict(type='Resize', scale=(width, height), keep_ratio=False)"
        )
    ((input_hw, grid_hw),) = sizes
    total = sum(gradient for gradient, _ in gradients)
    return ReceptiveField(
        name=Path(config).stem,
        stride=input_hw[0] / grid_hw[0],
        weight=total / total.sum(),
        trained=checkpoint is not None,
        images=count,
    )


def center_cell_gradient(
    model: nn.Module, batch: dict, level: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """Compute the gradient of a level's center cell with respect to each input pixel.

    Args:
        model: A detector.
        batch: One image, as the data loader collates it.
        level: Index of the feature map; 0 is the finest.

    Returns:
        The gradient (H, W), and the (rows, columns) of the feature map. The channels of the cell
        are summed before the gradient is computed. The absolute values of the gradient are then
        summed over the channels of the input.

    Raises:
        MixDetError: The level does not exist.
    """
    inputs = model.data_preprocessor(batch)["inputs"]
    inputs = inputs.contiguous(memory_format=torch.channels_last).requires_grad_()
    levels = model.extract_feat(inputs)
    if not 0 <= level < len(levels):
        raise MixDetError(f"--level {level}: the levels are 0 to {len(levels) - 1}")
    rows, columns = levels[level].shape[-2:]
    (gradient,) = torch.autograd.grad(levels[level][0, :, rows // 2, columns // 2].sum(), inputs)
    return gradient[0].abs().sum(0).double().numpy(), (rows, columns)


def receptive_field_table(fields: Sequence[ReceptiveField]) -> str:
    """Return a table of the squares that hold 50 % and 95 % of the gradient."""
    titles = [f"{100 * fraction:.0f} % within" for fraction in FRACTIONS]
    cells = [
        [
            field.name,
            "trained" if field.trained else "untrained",
            f"{field.stride:g}",
            *[f"{field.side(fraction)} x {field.side(fraction)}" for fraction in FRACTIONS],
        ]
        for field in fields
    ]
    return text_table(["config", "weights", "stride", *titles], cells)


def receptive_field_figure(fields: Sequence[ReceptiveField]) -> str:
    """Draw the fields side by side as SVG, in the same color scale.

    Another plot shows, for each field, the fraction of the gradient inside squares of growing size.
    """
    peak = max(field.weight.max() for field in fields)

    def draw(axes) -> None:
        *maps, growth = axes
        for index, (field, ax) in enumerate(zip(fields, maps, strict=True)):
            # The square root makes the faint rim visible too.
            ax.imshow(np.sqrt(field.weight / peak), cmap="magma", vmin=0, vmax=1)
            for fraction, style in zip(FRACTIONS, ("-", ":"), strict=True):
                side = field.side(fraction)
                corner = (field.center[1] - side / 2 - 0.5, field.center[0] - side / 2 - 0.5)
                ax.add_patch(Rectangle(corner, side, side, fill=False, ec="w", ls=style))
            weights = "" if field.trained else ", untrained"
            sides = " and ".join(str(field.side(fraction)) for fraction in FRACTIONS)
            ax.set_title(f"{field.name}{weights}\n50 and 95 % within {sides} pixels", fontsize=8)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            within = field.within()
            sides = 2 * np.arange(1, len(within) + 1)
            growth.plot(sides, 100 * within, color=series_color(index), label=field.name)
        growth.set(
            xlabel="side of the square (pixels)", ylabel="gradient within (%)", ylim=(0, 102)
        )
        growth.legend(fontsize=7, loc="lower right")

    size = (2.6 * len(fields) + 3.6, 3.1)
    width_ratios = [*[1] * len(fields), 1.3]
    return figure_to_svg(draw, size, ncols=len(fields) + 1, width_ratios=width_ratios)
