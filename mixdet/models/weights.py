"""Load all weights of a checkpoint, or name those that do not fit."""

from __future__ import annotations

import os

from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from mixdet.errors import MixDetError


def load_weights(model: nn.Module, checkpoint: dict, name: str | os.PathLike) -> None:
    """Load all weights of a checkpoint into a model, in place.

    Args:
        model: The model.
        checkpoint: A checkpoint as mmengine saves it, or a state dict.
        name: File of the checkpoint, for the error message.

    Raises:
        MixDetError: Names or shapes of the weights differ from the model's.
    """
    weights = checkpoint.get("state_dict", checkpoint)
    consume_prefix_in_state_dict_if_present(weights, "module.")  # added by DistributedDataParallel
    mismatch = weight_mismatch(model, weights)
    if mismatch:
        raise MixDetError(
            f"{name} does not fit its config: {mismatch}: use the config that it was trained with"
        )
    model.load_state_dict(weights)


def weight_mismatch(model: nn.Module, weights: dict) -> str:
    """Describe how the names and shapes of a state dict differ from those of a model.

    Args:
        model: The model.
        weights: The state dict.

    Returns:
        A description for an error message, with the first name of each kind of difference, or ''
        if the model can load the weights.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    other_shape = [
        name for name in own if name in weights and own[name].shape != weights[name].shape
    ]
    differences = []
    for names, sentence in (
        (missing, "it lacks {}"),
        (unexpected, "it has {}, which the model lacks"),
        (other_shape, "of another shape: {}"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            differences.append(sentence.format(names[0] + more))
    return "; ".join(differences)
