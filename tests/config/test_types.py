"""Configs whose types are classes work like configs whose types are names of classes."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from mixdet import launch
from mixdet.analysis import count_complexity
from mixdet.config.plain import parse_config
from mixdet.config.read import load_config, read_config
from mixdet.config.shipped import config_names
from mixdet.config.types import registered_name
from mixdet.data_check import full_check
from mixdet.errors import MixDetError
from mixdet.inference import Detector
from tests.tiny import write_config

pytestmark = pytest.mark.usefixtures("quick")

IMPORTS = """
from mmcv.transforms import LoadImageFromFile, RandomFlip
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, PhotoMetricDistortion
from mmdet.datasets.transforms import Resize
from mmdet.models import DetDataPreprocessor, SSDHead, SingleStageDetector
from mmdet.models.task_modules import MaxIoUAssigner, PseudoSampler, SSDAnchorGenerator
from mmdet.visualization import DetLocalVisualizer
from mmengine.dataset import DefaultSampler
from mmengine.hooks import LoggerHook
from mmengine.optim import LinearLR, MultiStepLR, OptimWrapper
from mmengine.runner import LogProcessor, TestLoop, ValLoop
from mmengine.visualization import LocalVisBackend
from torch.optim import SGD
import mixdet.datasets
import mixdet.engine
import mixdet.evaluation
from mixdet.datasets import SeededSampler, SeedSample
from mixdet.engine import InterruptHook, ReportHook, ResumableTrainLoop, SafeCheckpointHook
from mixdet.engine import SeedIterationHook
from mixdet.evaluation import CocoDetectionMetric
from tests.tiny import TinyBackbone
"""


def class_config(folder, images, epochs: int = 1):
    """Write the tiny config with a class or function, instead of a name, for every type."""
    path = write_config(folder, images, epochs)
    text = path.read_text().split("custom_imports", 1)[1].partition("\n")[2]
    for line in IMPORTS.splitlines():
        for name in line.partition(" import ")[2].split(", "):
            text = text.replace(f"type='{name}'", f"type={name}")
    path.write_text(IMPORTS + "default_scope = None\n" + text)
    return path


@pytest.fixture(scope="module")
def by_class(images, tmp_path_factory):
    """A config whose types are classes, and its checkpoint."""
    folder = tmp_path_factory.mktemp("classes")
    path = class_config(folder, images)
    launch.train(str(path))
    return path, folder / "work" / "epoch_1.pth"


def test_a_config_of_classes_trains_the_same_weights_as_a_config_of_names(by_class, trained):
    path, checkpoint = by_class
    assert path.read_text().count("type='") == 1, "only the type of nms is a name"
    ours, names = (torch.load(file, weights_only=True) for file in (checkpoint, trained[1]))
    for key, value in names["state_dict"].items():
        assert torch.equal(ours["state_dict"][key], value), key


def test_a_checkpoint_loads_with_the_config_of_classes_that_it_holds(by_class, trained, photograph):
    by_name, from_text, from_file = (
        Detector(trained[1]),
        Detector(by_class[1]),
        Detector(by_class[1], config=by_class[0]),
    )
    for detector in (from_text, from_file):
        assert torch.equal(
            torch.as_tensor(detector(photograph).boxes), torch.as_tensor(by_name(photograph).boxes)
        )


def test_the_tools_read_a_config_of_classes(by_class, trained):
    path, checkpoint = map(str, by_class)
    assert launch.evaluate(path, checkpoint) == launch.evaluate(*map(str, trained))
    assert full_check(load_config(path)).problems == full_check(load_config(trained[0])).problems
    ours, by_name = (count_complexity(config) for config in (path, str(trained[0])))
    assert ours.madds == by_name.madds


def test_trackers_and_mixed_precision_take_a_config_of_classes(images, tmp_path):
    launch.train(str(class_config(tmp_path, images)), amp=True, tracker=["tensorboard"])
    assert list(tmp_path.rglob("events.out*"))


def test_classes_in_a_config_whose_base_has_names_are_read_as_names(tmp_path):
    path = tmp_path / "child.py"
    path.write_text(
        f"_base_ = {str(config_names()['ssdlite_mixnet_s_digits'])!r}\n"
        "from torch.optim import SGD\nfrom mixdet.models import MixNet\n"
        "model = dict(backbone=dict(type=MixNet))\n"
        "optim_wrapper = dict(optimizer=dict(_delete_=True, type=SGD, lr=0.1))\n"
    )
    cfg = read_config(path)
    assert (cfg.model.backbone.type, cfg.optim_wrapper.optimizer.type) == ("MixNet", "SGD")
    assert parse_config(cfg.pretty_text)["model"] == cfg.to_dict()["model"]


def test_an_unregistered_class_is_named_by_its_module(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("from tests.config.test_types import Own\nmodel = dict(type=Own)\n")
    cfg = read_config(path)
    assert type(MODELS.build(cfg.model)).__name__ == "Own"
    with pytest.raises(ValueError, match="is not a registered name"):
        parse_config(cfg.pretty_text, registered_name)


class Own(torch.nn.Module):
    """A class that no registry knows."""


def test_a_type_that_has_no_name_is_refused(tmp_path):
    path = tmp_path / "nameless.py"
    path.write_text("model = dict(type=lambda: 1)\n")
    with pytest.raises(MixDetError, match="define it in a module of its own"):
        read_config(path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("mmdet.models.SSDHead", "SSDHead"),
        ("mmdet.models.dense_heads.ssd_head.SSDHead", "SSDHead"),
        ("mixdet.models.SSDLite", "SSDLite"),
        ("torch.optim.sgd.SGD", "SGD"),
        ("mmengine.rmtree", None),
        ("os.system", None),
        ("no.such.Module", None),
        ("sys.modules", None),
    ],
)
def test_only_the_paths_of_registered_classes_have_names(path, name):
    assert registered_name(path) == name


def test_the_config_text_that_mmengine_writes_for_classes_is_read(by_class):
    """The config text in a checkpoint of mmdet's own tool has the import paths of the classes."""
    text = Config.fromfile(by_class[0]).pretty_text
    assert "mmdet.models.SingleStageDetector" in text
    parsed = parse_config(text, registered_name)
    assert parsed["model"] == read_config(by_class[0]).to_dict()["model"]
