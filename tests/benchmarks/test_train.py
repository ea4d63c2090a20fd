"""In the benchmark `train`, mmdet with a backbone of timm makes the same step as MixDet."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.networks import NETWORKS, our_model, peer_model
from benchmarks.weights import copy_weights, initialize_as_trained
from mixdet.models.layers.fast_path import onednn_computes
from tests.synthetic import random_batch

SIZE = 160


def backward(model: nn.Module) -> Tensor:
    """Make a backward pass in the type and memory format of the weights; return the loss."""
    weight = next(p for p in model.parameters() if p.dim() == 4)
    data = model.train().data_preprocessor(random_batch(4, SIZE), training=True)
    if weight.is_contiguous(memory_format=torch.channels_last):
        data["inputs"] = data["inputs"].contiguous(memory_format=torch.channels_last)
    data["inputs"] = data["inputs"].to(weight.dtype)
    loss, _ = model.parse_losses(model(**data, mode="loss"))
    loss.backward()
    return loss.detach().double()


@pytest.mark.heavy
@pytest.mark.parametrize("name", NETWORKS)
def test_both_sides_make_the_same_step(name):
    """In float64, MixDet's losses, gradients and statistics equal those of the peer.

    The peer is mmdet's SSDLite with a backbone of timm. float32 would need large tolerances: batch
    norm over the few cells of the last levels amplifies rounding errors to some percent.
    """
    torch.manual_seed(0)
    peer, ours = peer_model(name, SIZE), our_model(name, SIZE)
    peer.init_weights()
    copy_weights(peer, ours)
    losses = [backward(model.double()) for model in (peer, ours)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=0)
    for (name, theirs), mine in zip(peer.named_parameters(), ours.parameters(), strict=True):
        # The exact gradient of a bias before a batch norm is 0. Rounding errors remain.
        assert (mine.grad - theirs.grad).norm() <= 1e-4 * theirs.grad.norm() + 1e-12, name
    for (name, theirs), mine in zip(peer.named_buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.heavy
@pytest.mark.parametrize("name", NETWORKS)
def test_errors_of_a_step_in_float32_are_at_most_twice_those_of_the_peer(name, monkeypatch):
    """The errors of loss and gradients against float64 are at most twice those of the peer.

    The peer runs in channels_last too. In this layout, the rounding error of torch's batch norm is
    six times as large as in NCHW.
    """
    peer, ours = peer_model(name, SIZE), our_model(name, SIZE)
    initialize_as_trained(
        peer, peer.data_preprocessor(random_batch(4, SIZE), training=True)["inputs"]
    )
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    copy_weights(peer, ours)
    exact = copy.deepcopy(peer).double()
    exact_loss = backward(exact)
    peer_loss = backward(peer.to(memory_format=torch.channels_last))
    if onednn_computes(torch.float32):
        our_loss, own_paths = backward_with_own_paths(ours, monkeypatch)
        assert min(own_paths.values()) > 0, own_paths
    else:
        our_loss = backward(ours)

    torch.testing.assert_close(our_loss, exact_loss, rtol=1e-4, atol=0)
    peer_error = (peer_loss - exact_loss).abs()
    assert (our_loss - exact_loss).abs() <= 2 * peer_error + 1e-6 * exact_loss
    compared = 0
    for (name, truth), theirs, mine in zip(
        exact.named_parameters(), peer.parameters(), ours.parameters(), strict=True
    ):
        size = truth.grad.norm()
        if size < 1e-9:
            continue  # the exact gradient of a bias before a batch norm is 0
        compared += 1
        # The errors are large only where the input of an activation is near one of its kinks.
        peer_error = (theirs.grad - truth.grad).norm()
        assert (mine.grad - truth.grad).norm() <= 2 * peer_error + 1e-4 * size, name
    assert compared > 0.7 * len(list(ours.parameters()))


def backward_with_own_paths(model: nn.Module, monkeypatch) -> tuple[Tensor, dict[str, int]]:
    """Make a backward pass; return the loss, and how often each fast path of MixDet ran."""
    dilated, conv2d = [], F.conv2d

    def record(x, weight, *args, **kwargs):
        dilated.append(weight.shape[-1] == 1 and kwargs.get("dilation") == 2)
        return conv2d(x, weight, *args, **kwargs)

    monkeypatch.setattr(F, "conv2d", record)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as ran:
        loss = backward(model)
    kernels = [e.input_shapes[2] for e in ran.events() if e.name == "aten::convolution_backward"]
    plain_norms = sum(event.name == "aten::batch_norm" for event in ran.events())
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    return loss, {
        "1x1 by oneDNN": sum(dilated),
        "depthwise in strips": sum(kernel[-1] == 3 < kernel[-2] for kernel in kernels),
        "norm and activation in one step": norms - plain_norms,
    }
