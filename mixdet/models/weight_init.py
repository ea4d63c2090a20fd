"""An initializer for `init_cfg` that loads ImageNet weights from timm."""

from __future__ import annotations

import socket
import urllib.request
from urllib.parse import urlsplit

import timm
from huggingface_hub import constants, try_to_load_from_cache
from mmengine.model import update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from mixdet.errors import MixDetError
from mixdet.file_kinds import require_checkpoint


@WEIGHT_INITIALIZERS.register_module()
class TimmPretrained:
    """Load ImageNet weights from timm into a backbone of this package.

    Args:
        model: Name of a timm model, such as 'mixnet_s.ft_in1k'. None stands for the backbone's
            `timm_name`.
        checkpoint: Local file (.safetensors or .pth) with a state dict of timm, to use instead of a
            download. It is read without unpickling objects.

    Raises:
        MixDetError: When called, if timm has no weights for the backbone, if the weights cannot be
            read or downloaded, or if they do not fit the backbone. Names, shapes, padding and norm
            eps are compared. Padding and eps are not compared for a local file, which lacks them.
    """

    def __init__(self, model: str | None = None, checkpoint: str | None = None) -> None:
        self.model = model
        self.checkpoint = checkpoint

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into a backbone."""
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
        """Return the state dict of timm's network and the name of its source."""
        if self.checkpoint is not None:
            return _read(self.checkpoint), self.checkpoint
        name = self.model or getattr(module, "timm_name", None)
        if name is None:
            raise MixDetError(
                f"init_cfg: timm has no ImageNet weights for this {type(module).__name__}, because "
                "of its kernel sizes, padding or width: remove init_cfg, or give init_cfg.model or "
                "init_cfg.checkpoint"
            )
        page = _pretrained_cfg(name).hf_hub_id
        difference = _difference(module, timm.create_model(name))
        if difference:
            raise MixDetError(
                f"init_cfg: the weights of {name} are for {difference}, but this "
                f"{type(module).__name__} has another value: change model.backbone or "
                "init_cfg.model"
            )
        cached = try_to_load_from_cache(page, "model.safetensors")
        if isinstance(cached, str):  # the file is on this machine
            return _read(cached), name
        try:
            _reach_hub()
            return timm.models.load_state_dict_from_hf(page, weights_only=True), name
        except Exception as error:  # a missing network, proxy or page raises various errors
            raise MixDetError(
                f"init_cfg: cannot download the weights of {name} ({type(error).__name__}): "
                f"download model.safetensors from huggingface.co/{page} on another machine, and "
                "set init_cfg.checkpoint to that file"
            ) from error


def _reach_hub(seconds: float = 5.0) -> None:
    """Raise an OSError if the Hugging Face hub cannot be reached within a few seconds.

    Without this check, the hub's client would retry for a minute.
    """
    hub = urlsplit(constants.ENDPOINT)
    if not urllib.request.getproxies():
        port = hub.port or (80 if hub.scheme == "http" else 443)
        socket.create_connection((hub.hostname, port), seconds).close()


def _difference(module: nn.Module, trained: nn.Module) -> str:
    """Return the padding or norm eps of timm's network if the backbone's differs, else ''."""
    same_padding = type(trained.conv_stem).__name__ == "Conv2dSame"
    if same_padding != (getattr(module, "padding", "symmetric") == "same"):
        return f"padding='{'same' if same_padding else 'symmetric'}'"
    eps, trained_eps = (
        next((norm.eps for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)), None)
        for network in (module, trained)
    )
    return f"norm_cfg.eps={trained_eps}" if eps != trained_eps else ""


def timm_normalization(name: str) -> tuple[list[float], list[float]]:
    """Return the normalization with which the weights of a timm model were trained.

    Args:
        name: Name of a timm model, such as 'mixnet_s.ft_in1k'.

    Returns:
        Mean and standard deviation of red, green and blue, on the scale of 0 to 255.

    Raises:
        MixDetError: If timm has no weights of this name.
    """
    cfg = _pretrained_cfg(name)
    mean, std = ([round(255 * value, 6) for value in values] for values in (cfg.mean, cfg.std))
    return mean, std


def _pretrained_cfg(name: str) -> timm.models.PretrainedCfg:
    try:
        cfg = timm.get_pretrained_cfg(name)
    except RuntimeError:  # timm has the model, but not with this tag
        cfg = None
    if cfg is None or not cfg.hf_hub_id:
        raise MixDetError(
            f"init_cfg.model={name!r}: timm has no such weights; a name looks like "
            "'mixnet_s.ft_in1k'"
        )
    return cfg


def _read(file: str) -> dict[str, Tensor]:
    try:
        require_checkpoint(file)
    except MixDetError as error:
        raise MixDetError(f"init_cfg.checkpoint: {error}") from error
    try:
        return timm.models.load_state_dict(file, weights_only=True)
    except Exception as error:
        raise MixDetError(
            f"init_cfg.checkpoint: {file!r} is not a state dict that can be read without "
            f"unpickling objects: use a .safetensors file ({type(error).__name__})"
        ) from error
