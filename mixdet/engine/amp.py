"""Mixed precision where mmengine's `AmpOptimWrapper` refuses: on the CPU, in bfloat16."""

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

    Weights, gradients and the optimizer stay in float32, and bfloat16 has float32's range, so no
    loss scaling is needed. Takes the arguments of `OptimWrapper`.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        native = cpu_has_bfloat16()
        words = (
            "this CPU has instructions for it"
            if native
            else "torch sees no instructions for it on this CPU and emulates them, so training is "
            "correct but slower than without --amp"
        )
        print_log(
            f"--amp: weights in float32, the forward pass in bfloat16; {words}",
            logger="current",
            level=logging.INFO if native else logging.WARNING,
        )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around the forward pass."""
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield


def cpu_has_bfloat16() -> bool:
    """Whether torch sees bfloat16 instructions, on x86 or ARM (an older torch: on x86 alone)."""
    if hasattr(torch.cpu, "get_capabilities"):
        seen = torch.cpu.get_capabilities()
        return any(seen.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    return cpu_has_avx512_bfloat16()


def amp_wrapper_type(wrapper: str) -> str:
    """The mixed-precision optimizer wrapper for this machine in place of a config's wrapper.

    Args:
        wrapper: `optim_wrapper.type` of the config.

    Returns:
        `AmpOptimWrapper` (float16, loss scaling) on a GPU, `CpuAmpOptimWrapper` on a CPU.

    Raises:
        MixDetError: The config's wrapper is another one, or the device has no mixed precision.
    """
    known = ("OptimWrapper", "AmpOptimWrapper", "CpuAmpOptimWrapper")
    if wrapper not in known:
        raise MixDetError(f"--amp: only OptimWrapper can change, not optim_wrapper.type={wrapper}")
    device = get_device()
    if device == "mps":
        raise MixDetError("--amp: mmengine has no mixed precision on Apple's GPU; leave --amp out")
    return "CpuAmpOptimWrapper" if device == "cpu" else "AmpOptimWrapper"
