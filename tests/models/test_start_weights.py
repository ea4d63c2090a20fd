"""Start weights fit the base config for own data, whatever the number of classes."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner import load_checkpoint

from mixdet.config.read import read_config
from mixdet.config.shipped import shipped_folder
from mixdet.errors import MixDetError
from mixdet.models import load_start_weights, start_weight_files
from mixdet.models.start_weights import lacks_only_class_layers, write_start_weights


@pytest.fixture
def detector():
    config = read_config(shipped_folder("configs") / "_base_" / "own_data.py")
    config.model.bbox_head.num_classes = 3
    detector = MODELS.build(config.model)
    detector.load_from = config.load_from
    return detector


def test_all_weights_but_those_of_the_classes_are_loaded(detector):
    classes = {name: t.clone() for name, t in detector.state_dict().items() if "cls_convs" in name}
    checkpoint = load_checkpoint(detector, detector.load_from)
    assert lacks_only_class_layers(detector, checkpoint["state_dict"])
    for name, tensor in detector.state_dict().items():
        if name in checkpoint["state_dict"]:
            assert torch.equal(tensor, checkpoint["state_dict"][name])
        else:
            assert torch.equal(tensor, classes[name])
            assert tensor.shape[0] == 6 * (3 + 1)  # anchors, classes and background
    assert all(tensor.isfinite().all() for tensor in detector.state_dict().values())


def test_weights_of_another_backbone_do_not_count_as_fitting(detector):
    weights = load_start_weights(detector.load_from)["state_dict"]
    name = "backbone.first.0.weight"
    assert not lacks_only_class_layers(detector, weights | {name: weights[name][:4]})
    assert not lacks_only_class_layers(detector, weights | {"other": weights[name]})
    del weights[name]
    assert not lacks_only_class_layers(detector, weights)


def test_an_unknown_name_is_refused_with_the_names_there_are():
    (name,) = start_weight_files()
    with pytest.raises(MixDetError, match=rf"no such start weights; did you mean {name}\?"):
        load_checkpoint(torch.nn.Linear(1, 1), f"mixdet://{name}s")
    with pytest.raises(MixDetError, match=f"use one of mixdet://{name}"):
        load_start_weights("mixdet://yolo")


def test_written_weights_lack_the_class_layers_and_have_half_precision(detector, tmp_path):
    file = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": detector.state_dict()}, file)
    written = torch.load(write_start_weights(file, tmp_path / "start.pth"), weights_only=True)
    assert lacks_only_class_layers(detector, written)
    for name, tensor in written.items():
        torch.testing.assert_close(
            tensor.float(), detector.state_dict()[name].float(), rtol=1e-3, atol=1e-6
        )
    assert {tensor.dtype for tensor in written.values()} == {torch.float16, torch.int64}
