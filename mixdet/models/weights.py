"""A checkpoint's weights are loaded whole, or the fault is named."""

from __future__ import annotations

import os

from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from mixdet.errors import MixDetError


def fill(model: nn.Module, checkpoint: dict, name: str | os.PathLike) -> None:
    """Load all of a checkpoint's weights into all of a model.

    Args:
        model: The model; changed in place.
        checkpoint: As mmengine saves it, or a state dict.
        name: Of the file, for the error.

    Raises:
        MixDetError: They do not fit.
    """
    weights = checkpoint.get("state_dict", checkpoint)
    consume_prefix_in_state_dict_if_present(weights, "module.")  # a parallel wrapper's
    fault = misfit(model, weights)
    if fault:
        raise MixDetError(f"{name} does not fit its config: {fault}")
    model.load_state_dict(weights)


def misfit(model: nn.Module, weights: dict) -> str:
    """What keeps weights from being the model's, in words; empty where they fit.

    Args:
        model: The model.
        weights: Its state dict, or another's.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    strange = [name for name in weights if name not in own]
    shapes = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    parts = []
    for names, words in (
        (missing, "it lacks {}"),
        (strange, "it has {}, which the model lacks"),
        (shapes, "of another shape: {}"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            parts.append(words.format(names[0] + more))
    return "; ".join(parts)
