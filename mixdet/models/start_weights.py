"""Weights that MixDet contains, to start a training from: `load_from = "mixdet://NAME"`.

They were trained on the shape scenes, by the commands in docs/start_weights.md. In place of the
layers that predict classes, the files have layers for one class: the mean over all classes of the
shape scenes. `MixConvSSDHead` repeats them for each of its classes, so every class starts as "an
object of any class".
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mixdet.compat import checkpoint as checkpoints
from mixdet.errors import MixDetError, did_you_mean
from mixdet.outputs import write_atomically

SCHEME = "mixdet://"
FOLDER = Path(__file__).with_name("weights")
CLASS_LAYER = re.compile(r"bbox_head\.cls_convs\.(\d+)\.3\.(\w+)")  # last layer of a predictor
ANY_CLASS = r"bbox_head.any_class.\1.\2"


def start_weight_files() -> dict[str, Path]:
    """Return the files of the start weights by name."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.pth"))}


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_start_weights(
    filename: str, map_location: str | torch.device | None = None
) -> dict[str, dict[str, Tensor]]:
    """Load start weights, as mmengine's `load_from` and `Pretrained` do.

    Args:
        filename: `mixdet://NAME`.
        map_location: Device of the tensors.

    Returns:
        A checkpoint with a `state_dict` of float32 tensors.

    Raises:
        MixDetError: There are no start weights of this name.
    """
    name = filename.removeprefix(SCHEME)
    files = start_weight_files()
    if name not in files:
        hint = did_you_mean(name, files) or f"use one of {', '.join(map(SCHEME.__add__, files))}"
        raise MixDetError(f"load_from={filename}: no such start weights; {hint}")
    half = torch.load(files[name], map_location=map_location or "cpu", weights_only=True)
    return {"state_dict": {key: _as(tensor, torch.float32) for key, tensor in half.items()}}


def are_start_weights_of(model: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dict has a model's weights, and `any_class` for its class layers."""
    own = {_any_class(name): weight.shape for name, weight in model.state_dict().items()}
    return own.keys() == weights.keys() and all(
        own[name] == weight.shape or ".any_class." in name for name, weight in weights.items()
    )


def write_start_weights(checkpoint: str | os.PathLike, out: str | os.PathLike) -> Path:
    """Write the weights of a checkpoint as start weights, in half precision.

    Args:
        checkpoint: A checkpoint of a detector with `MixConvSSDHead` and softmax.
        out: The file.

    Returns:
        The file.

    Raises:
        MixDetError: The checkpoint cannot be read.
    """
    weights = checkpoints.load(checkpoint)["state_dict"]
    start = {}
    for name, weight in weights.items():
        if CLASS_LAYER.fullmatch(name):
            anchors = weights[name.replace("cls_convs", "reg_convs")].shape[0] // 4
            columns = weight.view(anchors, -1, *weight.shape[1:])  # the classes, then background
            mean = columns[:, :-1].mean(1)
            weight = torch.stack([mean, columns[:, -1]], 1).flatten(0, 1)
        start[_any_class(name)] = _as(weight, torch.float16).clone()
    buffer = BytesIO()
    torch.save(start, buffer)
    write_atomically(Path(out), buffer.getvalue())
    return Path(out)


def _any_class(name: str) -> str:
    return CLASS_LAYER.sub(ANY_CLASS, name)


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
