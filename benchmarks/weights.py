"""Random weights, the same for MixDet and its peer."""

from __future__ import annotations

import math

import mixdet.compat.prepared

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

LOGIT_STD = 1.2  # standard deviation of the class logits
OFFSET_STD = 0.5  # standard deviation of the box offsets
BACKGROUND_BIAS = 9.0  # bias of the background logits; the bias of the class logits is 0


def copy_weights(peer: nn.Module, ours: nn.Module) -> None:
    """Copy the peer's weights. Both models have the same tensors in the same order."""
    values, names = peer.state_dict().values(), list(ours.state_dict())
    ours.load_state_dict(dict(zip(names, values, strict=True)))


def initialize(model: nn.Module, seed: int = 0) -> None:
    """Draw random weights, the same in every process.

    All modules are reset first, since `init_weights` does not reach modules of timm. mmengine's log
    is silenced, since it would print a line for every weight.
    """
    torch.manual_seed(seed)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    MMLogger.get_current_instance().setLevel("WARNING")
    model.init_weights()


def initialize_as_trained(model: nn.Module, inputs: Tensor, seed: int = 0) -> None:
    """Draw random weights that give scores like a trained detector's.

    A trained detector gives almost all pairs of anchor and class a score near zero. The weights of
    `initialize` give all pairs about the same score.

    Args:
        model: A model that `peer_model` built.
        inputs: Normalized images (N, 3, H, W). Batch norm takes its statistics from these images.
        seed: Seed of the random numbers.
    """
    initialize(model, seed)
    head = model.bbox_head
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics become the mean over all batches
    # Unlike trained layers, random layers with ReLU6 amplify rounding errors from level to level.
    # A bias of 3 moves the values to the middle of ReLU6's range, where rounding errors stay small.
    for module in model.neck.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 3)
    for std, convs in ((LOGIT_STD, head.cls_convs), (OFFSET_STD, head.reg_convs)):
        for block in convs:
            nn.init.normal_(block[-1].weight, std=std / math.sqrt(block[-1].in_channels / 2))
    for block, anchors in zip(head.cls_convs, head.num_base_priors, strict=True):
        block[-1].bias.data.view(anchors, -1)[:, -1] = BACKGROUND_BIAS
    with torch.no_grad():
        model.train()(inputs, mode="tensor")
    model.eval()
