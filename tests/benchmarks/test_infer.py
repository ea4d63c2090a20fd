"""A form of `infer` times its own network from end to end."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from mmdet.models.detectors.base import BaseDetector

from benchmarks.inference_files import write_files
from benchmarks.inference_forms import PEER
from benchmarks.inference_torch import load_torch_form
from mixdet.models.backbones import MixNet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("infer")
    write_files("MixNet-S", folder, {})
    return folder


@pytest.mark.parametrize("form", [PEER, "MixDet, PyTorch", "MixDet, PyTorch fused"])
def test_a_form_is_timed_from_end_to_end_with_its_own_network(folder, form):
    threads = torch.get_num_threads()
    images = [np.zeros((480, 640, 3), np.uint8)]
    parts = load_torch_form(form, folder, threads, "MixNet-S")(images)
    detectors = {}
    for part in ("network", "end to end"):
        with detectors_that_run() as detectors[part]:
            parts[part]()
    assert detectors["end to end"] == detectors["network"]
    (detector,) = detectors["network"]
    has_norms = any(isinstance(module, torch.nn.BatchNorm2d) for module in detector.modules())
    assert has_norms == ("fused" not in form)
    assert isinstance(detector.backbone, MixNet) == (form != PEER)


@contextlib.contextmanager
def detectors_that_run():
    detectors = []

    def record(module, args):
        if isinstance(module, BaseDetector):
            detectors.append(module)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(record)
    try:
        yield detectors
    finally:
        handle.remove()
