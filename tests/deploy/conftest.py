"""A fixture for all tests of `mixdet.deploy`."""

from __future__ import annotations

import pytest

from mixdet.inference.trained import TrainedNetwork


@pytest.fixture(scope="session")
def network(trained):
    """The tiny trained detector in PyTorch."""
    config, checkpoint = trained
    return TrainedNetwork(checkpoint, config, "cpu", False)
