"""Mixed precision on the CPU, which mmengine's `AmpOptimWrapper` does not support."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from mixdet.errors import MixDetError
from mixdet.models.torch_private import cpu_has_avx512_bfloat16


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """`OptimWrapper` whose forward pass runs under CPU autocast to bfloat16.

    Weights, gradients and the optimizer's state stay in float32. bfloat16 has the same range as
    float32, so the losses need no scaling. The arguments are those of `OptimWrapper`.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        native = cpu_has_bfloat16()
        speed = (
            "this CPU has bfloat16 instructions"
            if native
            else "torch sees no bfloat16 instructions on this CPU and emulates them: training is "
            "correct, but slower than without --amp"
        )
        print_log(
            f"--amp: weights in float32, the forward pass in bfloat16; {speed}",
            logger="current",
            level=logging.INFO if native else logging.WARNING,
        )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Return the context of the forward pass, with autocast."""
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield


def cpu_has_bfloat16() -> bool:
    """Return whether torch finds bfloat16 instructions. Old torch versions know x86 only."""
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        names = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
        return any(capabilities.get(name) for name in names)
    return cpu_has_avx512_bfloat16()


def amp_wrapper_type(wrapper: str) -> str:
    """Return the name of the mixed-precision optimizer wrapper for this machine.

    Args:
        wrapper: `optim_wrapper.type` of the config. The caller replaces it by the result.

    Returns:
        `AmpOptimWrapper` (float16, loss scaling) on a GPU, `CpuAmpOptimWrapper` on a CPU.

    Raises:
        MixDetError: `wrapper` is not supported, or the device has no mixed precision.
    """
    supported = ("OptimWrapper", "AmpOptimWrapper", "CpuAmpOptimWrapper")
    if wrapper not in supported:
        raise MixDetError(
            f"--amp does not support optim_wrapper.type={wrapper}: use OptimWrapper, or leave "
            "--amp out"
        )
    device = get_device()
    if device == "mps":
        raise MixDetError("--amp: mmengine has no mixed precision on Apple's GPUs: leave --amp out")
    return "CpuAmpOptimWrapper" if device == "cpu" else "AmpOptimWrapper"
