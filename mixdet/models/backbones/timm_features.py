"""A network of timm as a backbone. `mixdet.plugin` does not import this file; a config must."""

from __future__ import annotations

from collections.abc import Sequence

import mixdet.compat.prepared

import timm
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


@MODELS.register_module()
class TimmFeatures(BaseModule):
    """A `features_only` network of timm, with random weights.

    Attributes:
        channels: Channels of each output.

    Args:
        name: A name that `timm.create_model` knows.
        out_indices: Indices of the outputs to return. The last two outputs of a MixNet, which are
            the default, have the strides 16 and 32.
        init_cfg: See mmengine's `BaseModule`.
    """

    def __init__(
        self,
        name: str,
        out_indices: Sequence[int] = (-2, -1),
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        net = timm.create_model(name, features_only=True, out_indices=out_indices)
        self.net = drop_unused_stages(net)
        self.channels: Sequence[int] = net.feature_info.channels()

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> (N, C, H / stride, W / stride) for each output."""
        return self.net(x)


def drop_unused_stages(net: nn.Module) -> nn.Module:
    """Delete the stages after the last output of a `features_only` network, in place.

    timm's EfficientNets and MixNets would compute these stages in every forward pass.
    """
    last_output = net.feature_info.module_name()[-1]
    if last_output.startswith("blocks."):  # networks of other families stop at the last output
        del net.blocks[int(last_output.removeprefix("blocks.")) + 1 :]
    return net
