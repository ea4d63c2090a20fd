"""ImageNet weights from timm, as an initializer that `init_cfg` names."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import timm
from huggingface_hub import constants, try_to_load_from_cache
from mmengine.model import update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from mixdet.errors import MixDetError


@WEIGHT_INITIALIZERS.register_module()
class TimmPretrained:
    """Load the ImageNet weights that fit a backbone of ours, through timm.

    Args:
        model: Name of a timm model, as 'mixnet_s.ft_in1k', in place of the backbone's own
            `timm_name`, which follows from its arch and padding.
        checkpoint: Local file (.safetensors, or .pth) with timm's state dict, in place of the
            hub. It is read without unpickling objects.

    Raises:
        MixDetError: When called, if no weights fit, they cannot be read or fetched, or names,
            shapes, padding or the norms' eps differ from the backbone's. (A local file does not say
            its padding and eps: they are not compared.)
    """

    def __init__(self, model: str | None = None, checkpoint: str | None = None) -> None:
        self.model = model
        self.checkpoint = checkpoint

    def __call__(self, module: nn.Module) -> None:
        """Fill a backbone."""
        state, source = self._state(module)
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            differences = "; ".join(line.strip()[:200] for line in str(error).splitlines()[1:4])
            raise MixDetError(
                f"init_cfg: the weights of {source} do not fit this {type(module).__name__}: "
                f"{differences}"
            ) from error
        if hasattr(module, "_params_init_info"):
            update_init_info(module, init_info=f"TimmPretrained: {source}")

    def _state(self, module: nn.Module) -> tuple[dict[str, Tensor], str]:
        """timm's state dict and where it comes from."""
        if self.checkpoint is not None:
            return _read(self.checkpoint), self.checkpoint
        name = self.model or getattr(module, "timm_name", None)
        if name is None:
            raise MixDetError(
                f"init_cfg: there are no ImageNet weights for this {type(module).__name__} (other "
                "than 3x3 kernels, or a padding or width that timm has none for): remove init_cfg, "
                "or give init_cfg.model or init_cfg.checkpoint"
            )
        page = _pretrained_cfg(name).hf_hub_id
        difference = _difference(module, timm.create_model(name))
        if difference:
            raise MixDetError(
                f"init_cfg: the weights of {name} are for {difference}, which this "
                f"{type(module).__name__} has not: change model.backbone, or init_cfg.model"
            )
        cached = try_to_load_from_cache(page, "model.safetensors")
        if isinstance(cached, str):  # without asking the hub, which takes a network
            return _read(cached), name
        try:
            _reach_hub()
            return timm.models.load_state_dict_from_hf(page, weights_only=True), name
        except Exception as error:  # whatever a missing network, proxy or page raises
            raise MixDetError(
                f"init_cfg: cannot fetch the weights of {name} ({type(error).__name__}): where "
                f"there is a network, get model.safetensors from huggingface.co/{page}, and set "
                "init_cfg.checkpoint to that file"
            ) from error


def _reach_hub(seconds: float = 5.0) -> None:
    """Raise at once where there is no way to the hub, whose own client tries for a minute."""
    hub = urlsplit(constants.ENDPOINT)
    if not urllib.request.getproxies():
        port = hub.port or (80 if hub.scheme == "http" else 443)
        socket.create_connection((hub.hostname, port), seconds).close()


def _difference(module: nn.Module, trained: nn.Module) -> str:
    """What timm's network computes with and ours does not, though their weights have one shape."""
    same = type(trained.conv_stem).__name__ == "Conv2dSame"
    if same != (getattr(module, "padding", "symmetric") == "same"):
        return f"padding='{'same' if same else 'symmetric'}'"
    eps = [
        next((norm.eps for norm in net.modules() if isinstance(norm, nn.BatchNorm2d)), None)
        for net in (module, trained)
    ]
    return f"norm_cfg.eps={eps[1]}" if eps[0] != eps[1] else ""


def timm_normalization(name: str) -> tuple[list[float], list[float]]:
    """The normalization that a timm model's weights were trained with.

    Args:
        name: Name of a timm model, as 'mixnet_s.ft_in1k'.

    Returns:
        Mean and standard deviation of red, green and blue, on the scale of 0 to 255.

    Raises:
        MixDetError: If timm has no such weights.
    """
    cfg = _pretrained_cfg(name)
    mean, std = ([round(255 * value, 6) for value in values] for values in (cfg.mean, cfg.std))
    return mean, std


def _pretrained_cfg(name: str) -> timm.models.PretrainedCfg:
    try:
        cfg = timm.get_pretrained_cfg(name)
    except RuntimeError:  # timm knows the model, but not the tag
        cfg = None
    if cfg is None or not cfg.hf_hub_id:
        raise MixDetError(
            f"init_cfg.model={name!r}: timm has no such weights; a name looks like "
            "'mixnet_s.ft_in1k'"
        )
    return cfg


def _read(file: str) -> dict[str, Tensor]:
    if not Path(file).is_file():
        raise MixDetError(f"init_cfg.checkpoint: there is no file {file!r}")
    try:
        return timm.models.load_state_dict(file, weights_only=True)
    except Exception as error:
        raise MixDetError(
            f"init_cfg.checkpoint: {file!r} is not a state dict that can be read without "
            f"unpickling objects: use a .safetensors file ({type(error).__name__})"
        ) from error
