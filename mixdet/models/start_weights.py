"""Weights that MixDet contains, to start a training from: `load_from = "mixdet://NAME"`.

They were trained on the shape scenes, by the commands in docs/start_weights.md. No real image and
no other data set was used. The layers that predict classes are not contained, since they depend on
the number of classes.
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
CLASS_LAYERS = re.compile(r"bbox_head\.cls_convs\.\d+\.3\.")  # the last layer of each predictor


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


def lacks_only_class_layers(model: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dict has all weights of a model but those of its class layers."""
    own = model.state_dict()
    return own.keys() - weights.keys() == {*filter(CLASS_LAYERS.match, own)} and all(
        name in own and own[name].shape == weight.shape for name, weight in weights.items()
    )


def write_start_weights(checkpoint: str | os.PathLike, out: str | os.PathLike) -> Path:
    """Write the weights of a checkpoint as start weights, in half precision.

    Args:
        checkpoint: A checkpoint of a detector with `MixConvSSDHead`.
        out: The file.

    Returns:
        The file.

    Raises:
        MixDetError: The checkpoint cannot be read.
    """
    weights = checkpoints.load(checkpoint)["state_dict"]
    kept = {
        key: _as(tensor, torch.float16).clone()
        for key, tensor in weights.items()
        if not CLASS_LAYERS.match(key)
    }
    buffer = BytesIO()
    torch.save(kept, buffer)
    write_atomically(Path(out), buffer.getvalue())
    return Path(out)


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
