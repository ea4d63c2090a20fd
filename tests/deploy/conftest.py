"""A tiny trained detector, and its exported folders: made once for all tests."""

from __future__ import annotations

import pytest

from mixdet.deploy.export import export
from mixdet.engine import launch
from mixdet.engine.trained import TrainedNetwork
from tests.tiny import write_config, write_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def trained(pictures, tmp_path_factory):
    """A config and the checkpoint that its training left."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(folder, pictures, epochs=1)
    launch.train(str(config))
    return config, folder / "work" / "epoch_1.pth"


@pytest.fixture(scope="session")
def network(trained):
    """The detector in PyTorch."""
    config, checkpoint = trained
    return TrainedNetwork(checkpoint, config, "cpu", False)


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    """The folder of the exported folders `raw` and `end2end`, each for both runtimes."""
    out = tmp_path_factory.mktemp("exported")
    export(*trained, out, targets=("onnx", "openvino"), kinds=("raw", "end2end"))
    return out
