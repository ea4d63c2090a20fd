"""A tiny trained detector, and its exported folders."""

from __future__ import annotations

import pytest

from mixdet.deploy.export import export
from mixdet.engine.trained import TrainedNetwork
from tests.tools.conftest import pictures, quick, trained  # noqa: F401


@pytest.fixture(scope="module")
def network(trained):  # noqa: F811
    """The detector in PyTorch."""
    config, checkpoint = trained
    return TrainedNetwork(checkpoint, config, "cpu", False)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):  # noqa: F811
    """The folder of the exported folders `raw` and `end2end`, each for both runtimes."""
    out = tmp_path_factory.mktemp("exported")
    export(*trained, out, targets=("onnx", "openvino"), kinds=("raw", "end2end"))
    return out
