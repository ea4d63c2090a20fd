"""Train with a CUDA graph: a small network otherwise spends most of its time on kernel launches."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from mmdet.registry import HOOKS
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mixdet.errors import MixDetError, one_line
from mixdet.models.dense_heads import MixConvSSDHead
from mixdet.models.detectors import SSDLite
from mixdet.models.detectors.ssdlite import HeadOutputs


@HOOKS.register_module()
class CudaGraphHook(Hook):
    """Run the forward and backward pass of backbone, neck and predictors as a CUDA graph.

    `torch.cuda.make_graphed_callables` captures the hundreds of kernels of each pass, and the
    graph launches them at once. Results do not change. Targets, losses, the optimizer and
    validation run without the graph. A batch whose size differs from the first batch's also runs
    without the graph.

    The hook needs one GPU and an `SSDLite` with a `MixConvSSDHead`, and supports no gradient
    accumulation. No shipped config contains the hook. To add it, use
    `--cfg-options default_hooks.cuda_graph.type=CudaGraphHook`.
    """

    priority = "LOWEST"  # after the hook that seeds the iteration

    def before_train(self, runner: Runner) -> None:
        """Check that the network can be captured.

        Raises:
            MixDetError: There is no GPU, the run has several processes, the detector is not
                supported, or gradients are accumulated.
        """
        head = getattr(runner.model, "bbox_head", None)
        accumulated = getattr(runner.optim_wrapper, "_accumulative_counts", 1)
        for fails, reason in (
            (not torch.cuda.is_available(), "torch sees no GPU"),
            (get_world_size() > 1, "the graph does not average the gradients of several processes"),
            (
                type(runner.model) is not SSDLite or type(head) is not MixConvSSDHead,
                "the model is not an SSDLite with a MixConvSSDHead",
            ),
            # The next pass of the graph overwrites the gradients, so they cannot be accumulated.
            (accumulated > 1, "optim_wrapper.accumulative_counts is more than 1"),
        ):
            if fails:
                raise MixDetError(
                    f"CudaGraphHook: {reason}; remove the hook (default_hooks.cuda_graph=None)"
                )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Capture the network before the first iteration, for the size of the first batch."""
        if runner.model.graphed is None:
            images = len(data_batch["inputs"])
            capture(runner.model, images, runner.optim_wrapper.optim_context(runner.model))

    def after_train(self, runner: Runner) -> None:
        """Free the graph's memory."""
        runner.model.graphed = None


def capture(model: SSDLite, images: int, context: AbstractContextManager) -> None:
    """Capture a detector's network, and set `model.graphed` to a function that runs the graph.

    Weights, batch norm statistics and random states do not change.

    Args:
        model: The detector, on a GPU and in training mode.
        images: Images per batch.
        context: The context of a step's forward pass, as `OptimWrapper.optim_context` returns it.

    Raises:
        MixDetError: The network cannot be captured, for example because a layer makes the CPU wait
            for the GPU.
    """
    device = next(model.parameters()).device
    width, height = model.input_wh
    inputs = torch.randn(images, 3, height, width, device=device)
    buffers = [buffer.clone() for buffer in model.buffers()]  # the capture changes them
    try:
        with torch.random.fork_rng([device]), context, _uncached_autocast():
            graphed = torch.cuda.make_graphed_callables(
                _HeadOutputs(model), (inputs,), allow_unused_input=True
            )
    except RuntimeError as error:
        raise MixDetError(
            f"CudaGraphHook: the network cannot be captured: {one_line(error)}; remove the hook "
            "(default_hooks.cuda_graph=None)"
        ) from error
    for buffer, value in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(value)

    def outputs(batch: Tensor) -> HeadOutputs:
        if batch.shape == inputs.shape and model.training and torch.is_grad_enabled():
            return graphed(batch)
        return model.outputs(batch)

    model.graphed = outputs


class _HeadOutputs(nn.Module):
    """A module whose `forward` is `SSDLite.outputs`. torch needs a module to find the weights."""

    def __init__(self, model: SSDLite) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> HeadOutputs:
        return self.model.outputs(inputs)


def _uncached_autocast() -> AbstractContextManager:
    """Return the current autocast without its cache.

    Each run of the graph then casts the current weights, instead of using old casts.
    """
    return torch.autocast(
        "cuda",
        dtype=torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )
