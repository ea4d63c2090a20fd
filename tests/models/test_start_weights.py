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
from mixdet.models.start_weights import are_start_weights_of, write_start_weights


@pytest.fixture
def detector():
    config = read_config(shipped_folder("configs") / "_base_" / "own_data.py")
    config.model.bbox_head.num_classes = 3
    detector = MODELS.build(config.model)
    detector.load_from = config.load_from
    return detector


def test_every_class_starts_from_the_same_weights(detector):
    checkpoint = load_checkpoint(detector, detector.load_from, strict=True)
    weights = checkpoint["state_dict"]
    assert are_start_weights_of(detector, weights)
    for name, tensor in detector.state_dict().items():
        assert tensor.isfinite().all()
        if name in weights:
            assert torch.equal(tensor, weights[name])
    for level, predictor in enumerate(detector.bbox_head.cls_convs):
        by_class = predictor[-1].bias.view(6, 4)  # anchors; three classes and the background
        start = weights[f"bbox_head.any_class.{level}.bias"].view(6, 2)
        for column, source in enumerate((0, 0, 0, 1)):
            assert torch.equal(by_class[:, column], start[:, source])


def test_other_weights_do_not_count_as_start_weights(detector):
    weights = load_start_weights(detector.load_from)["state_dict"]
    name = "backbone.conv_stem.weight"
    assert not are_start_weights_of(detector, detector.state_dict())
    assert not are_start_weights_of(detector, weights | {name: weights[name][:4]})
    assert not are_start_weights_of(detector, weights | {"other": weights[name]})
    del weights[name]
    assert not are_start_weights_of(detector, weights)


def test_an_unknown_name_is_refused_with_the_names_there_are():
    (name,) = start_weight_files()
    with pytest.raises(MixDetError, match=rf"no such start weights; did you mean {name}\?"):
        load_checkpoint(torch.nn.Linear(1, 1), f"mixdet://{name}s")
    with pytest.raises(MixDetError, match=f"use one of mixdet://{name}"):
        load_start_weights("mixdet://yolo")


def test_the_mean_over_the_classes_is_written_in_half_precision(detector, tmp_path):
    file = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": detector.state_dict()}, file)
    written = torch.load(write_start_weights(file, tmp_path / "start.pth"), weights_only=True)
    assert are_start_weights_of(detector, written)
    own = detector.state_dict()
    for name in written.keys() & own.keys():
        torch.testing.assert_close(
            written[name], own[name], rtol=1e-3, atol=1e-6, check_dtype=False
        )
    for anchor in range(6):  # of the second level
        rows = own["bbox_head.cls_convs.1.3.weight"][4 * anchor : 4 * anchor + 4]
        start = written["bbox_head.any_class.1.weight"][2 * anchor : 2 * anchor + 2]
        expected = torch.stack([(rows[0] + rows[1] + rows[2]) / 3, rows[3]])
        torch.testing.assert_close(start.float(), expected, rtol=1e-3, atol=1e-6)
    assert {tensor.dtype for tensor in written.values()} == {torch.float16, torch.int64}
