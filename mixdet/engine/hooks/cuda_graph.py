"""The training step's network as one CUDA graph: a small network has a GPU wait for launches."""

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


@HOOKS.register_module()
class CudaGraphHook(Hook):
    """Train with the forward and backward pass of backbone, neck and predictors as a CUDA graph.

    The hundreds of kernels of each are then launched at once (`torch.cuda.make_graphed_callables`).
    Targets, losses and the optimizer run as they do without. Results do not change. Validation, and
    a batch of another size than the first, do without the graph.

    One GPU, an `SSDLite` with a `MixConvSSDHead`, and no gradient accumulation. Not in the
    configs: `--cfg-options default_hooks.cuda_graph.type=CudaGraphHook`.
    """

    priority = "LOWEST"  # after the hook that seeds the iteration

    def before_train(self, runner: Runner) -> None:
        """Refuse what cannot be captured.

        Raises:
            MixDetError: No GPU, several processes, another detector, or accumulated gradients.
        """
        head = getattr(runner.model, "bbox_head", None)
        accumulated = getattr(runner.optim_wrapper, "_accumulative_counts", 1)
        for wrong, words in (
            (not torch.cuda.is_available(), "no GPU is seen"),
            (get_world_size() > 1, "several processes, whose gradients it would not average"),
            (
                type(runner.model) is not SSDLite or type(head) is not MixConvSSDHead,
                "the model is not an SSDLite with a MixConvSSDHead",
            ),
            # .grad is the graph's own memory, which the next pass overwrites
            (accumulated > 1, "optim_wrapper.accumulative_counts is more than 1"),
        ):
            if wrong:
                raise MixDetError(f"CudaGraphHook: {words}; leave the hook out")

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Capture before the first iteration, from which the batch's size is known."""
        if runner.model.graphed is None:
            images = len(data_batch["inputs"])
            capture(runner.model, images, runner.optim_wrapper.optim_context(runner.model))

    def after_train(self, runner: Runner) -> None:
        """Free the graph's memory."""
        runner.model.graphed = None


def capture(model: SSDLite, images: int, context: AbstractContextManager) -> None:
    """Let a detector on a GPU, in training mode, compute its outputs by a CUDA graph.

    Weights, statistics and random state stay as they are; gradients are the optimizer's to clear.

    Args:
        model: Its `graphed` is set.
        images: Of a batch.
        context: What the forward pass of a step runs in, as `OptimWrapper.optim_context` gives it.

    Raises:
        MixDetError: Something in the network waits for the GPU, or cannot be captured otherwise.
    """
    device = next(model.parameters()).device
    inputs = torch.randn(images, 3, model.input_size, model.input_size, device=device)
    kept = [buffer.clone() for buffer in model.buffers()]  # the warm-up moves batch norm's
    try:
        with torch.random.fork_rng([device]), context, _uncached_autocast():
            graphed = torch.cuda.make_graphed_callables(
                _Outputs(model), (inputs,), allow_unused_input=True
            )
    except RuntimeError as error:
        raise MixDetError(
            f"CudaGraphHook: the network cannot be captured: {one_line(error)}; leave the hook out"
        ) from error
    for buffer, value in zip(model.buffers(), kept, strict=True):
        buffer.copy_(value)

    def outputs(batch: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        if batch.shape == inputs.shape and model.training and torch.is_grad_enabled():
            return graphed(batch)
        return model.outputs(batch)

    model.graphed = outputs


class _Outputs(nn.Module):
    """What is captured: a module, so that its parameters are found."""

    def __init__(self, model: SSDLite) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return self.model.outputs(inputs)


def _uncached_autocast() -> AbstractContextManager:
    """The autocast that is on, without its cache: a cast of a weight must be in the graph."""
    return torch.autocast(
        "cuda",
        dtype=torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )
