from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixdet.analysis.benchmark.peers import (
    NETWORKS,
    as_trained,
    our_model,
    peer_model,
    share_weights,
)
from mixdet.analysis.benchmark.train import fixed_batch
from mixdet.models.layers import depthwise, norm_act
from mixdet.models.layers.fast_path import onednn_computes

SIZE = 160


def backward(model: nn.Module) -> Tensor:
    """The loss of a batch, after a backward pass; in the type and layout of the weights."""
    weight = next(p for p in model.parameters() if p.dim() == 4)
    data = model.train().data_preprocessor(fixed_batch(4, SIZE), training=True)
    if weight.is_contiguous(memory_format=torch.channels_last):
        data["inputs"] = data["inputs"].contiguous(memory_format=torch.channels_last)
    data["inputs"] = data["inputs"].to(weight.dtype)
    loss, _ = model.parse_losses(model(**data, mode="loss"))
    loss.backward()
    return loss.detach().double()


@pytest.mark.heavy
@pytest.mark.parametrize("name", NETWORKS)
def test_both_sides_make_the_same_step(name):
    """Losses, gradients and statistics of the plain path: timm's and mmdet's own modules, NCHW.

    In float64: batch norm over the few cells of the last levels makes percents in the stem out of
    float32's rounding, whatever computes it.
    """
    torch.manual_seed(0)
    peer, ours = peer_model(name, SIZE), our_model(name, SIZE)
    peer.init_weights()
    share_weights(peer, ours)
    losses = [backward(model.double()) for model in (peer, ours)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=0)
    for (name, theirs), mine in zip(peer.named_parameters(), ours.parameters(), strict=True):
        # a bias before a batch norm has no gradient, but rounding
        assert (mine.grad - theirs.grad).norm() <= 1e-4 * theirs.grad.norm() + 1e-12, name
    for (name, theirs), mine in zip(peer.named_buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.heavy
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_in_float32_rounds_as_the_plain_path_does(name, monkeypatch):
    """Against the plain path in float64, with heads that let gradients through to the backbone.

    The plain path is in channels_last here: torch's batch norm rounds the sums of that layout six
    times as much as those of planes, and what computes them is not ours.
    """
    peer, ours = peer_model(name, SIZE), our_model(name, SIZE)
    as_trained(peer, peer.data_preprocessor(fixed_batch(4, SIZE), training=True)["inputs"])
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    share_weights(peer, ours)
    exact = copy.deepcopy(peer).double()
    wanted = backward(exact)
    plain = backward(peer.to(memory_format=torch.channels_last))
    taken = count_fast_paths(monkeypatch)
    found = backward(ours)
    if onednn_computes(torch.float32):
        assert min(taken.values()) > 0, taken

    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)
    assert (found - wanted).abs() <= 2 * (plain - wanted).abs() + 1e-6 * wanted
    compared = 0
    for (name, e), theirs, mine in zip(
        exact.named_parameters(), peer.parameters(), ours.parameters(), strict=True
    ):
        size = e.grad.norm()
        if size < 1e-9:
            continue  # a bias before a batch norm has no gradient, but rounding
        compared += 1
        # small in all but those that lie behind activations near a kink
        assert (mine.grad - e.grad).norm() <= 2 * (theirs.grad - e.grad).norm() + 1e-4 * size, name
    assert compared > 0.7 * len(list(ours.parameters()))


def count_fast_paths(monkeypatch) -> dict[str, int]:
    """How often a step takes what is ours and not torch's modules: all 0 as yet."""
    taken = {"1x1 by oneDNN": 0, "strips": 0, "norm and activation": 0}
    conv2d, strips, joint = F.conv2d, depthwise._weight_gradient, norm_act._NormAct.apply

    def count(name: str, function):
        def spy(*args, **kwargs):
            taken[name] += 1
            return function(*args, **kwargs)

        return spy

    def conv(x, weight, *args, **kwargs):
        taken["1x1 by oneDNN"] += weight.shape[-1] == 1 and kwargs.get("dilation") == 2
        return conv2d(x, weight, *args, **kwargs)

    monkeypatch.setattr(F, "conv2d", conv)
    monkeypatch.setattr(depthwise, "_weight_gradient", count("strips", strips))
    monkeypatch.setattr(norm_act._NormAct, "apply", count("norm and activation", joint))
    return taken
