from __future__ import annotations

import pytest
import torch

from mixdet.analysis.benchmark.peers import NETWORKS, our_model, peer_model, share_weights
from mixdet.analysis.benchmark.train import fixed_batch

SIZE = 160


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
    losses = []
    for model in (peer, ours):
        data = model.double().train().data_preprocessor(fixed_batch(4, SIZE), training=True)
        data["inputs"] = data["inputs"].double()
        found, _ = model.parse_losses(model(**data, mode="loss"))
        found.backward()
        losses.append(found.detach().double())
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=0)
    for (name, theirs), mine in zip(peer.named_parameters(), ours.parameters(), strict=True):
        # a bias before a batch norm has no gradient, but rounding
        assert (mine.grad - theirs.grad).norm() <= 1e-4 * theirs.grad.norm() + 1e-12, name
    for (name, theirs), mine in zip(peer.named_buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5, msg=name)
