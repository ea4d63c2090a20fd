"""The benchmark `infer` times the network and the end-to-end detection of the same detector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.models.detectors.base import BaseDetector

from benchmarks.inference_files import write_files
from benchmarks.inference_forms import PEER
from benchmarks.inference_torch import load_torch_form
from mixdet.models import MixNet
from tests.running_modules import count_batch_norms, record_running_modules


@pytest.fixture(scope="module")
def network_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("infer")
    write_files("MixNet-S", folder, {})
    return folder


@pytest.mark.heavy
@pytest.mark.parametrize("form", [PEER, "MixDet, PyTorch", "MixDet, PyTorch fused"])
def test_end_to_end_and_network_time_the_same_detector(network_files, form):
    threads = torch.get_num_threads()
    images = [np.zeros((480, 640, 3), np.uint8)]
    parts = load_torch_form(form, network_files, threads, "MixNet-S")(images)
    detectors = {}
    for part in ("network", "end to end"):
        with record_running_modules() as modules:
            parts[part]()
        detectors[part] = [module for module in modules if isinstance(module, BaseDetector)]
    assert detectors["end to end"] == detectors["network"]
    (detector,) = detectors["network"]
    assert (count_batch_norms([*detector.modules()]) > 0) == ("fused" not in form)
    assert isinstance(detector.backbone, MixNet) == (form != PEER)
