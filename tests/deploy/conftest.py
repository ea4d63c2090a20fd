"""A tiny trained detector and its exported folders, which all tests share."""

from __future__ import annotations

import pytest

from mixdet.deploy import export
from mixdet.inference.trained import TrainedNetwork


@pytest.fixture(scope="session")
def network(trained):
    """The detector in PyTorch."""
    config, checkpoint = trained
    return TrainedNetwork(checkpoint, config, "cpu", False)


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    """A folder with the exported folders `raw` and `end2end`, each for two runtimes."""
    out = tmp_path_factory.mktemp("exported")
    export(*trained, out, targets=("onnx", "openvino"), kinds=("raw", "end2end"))
    return out
