"""`DataCheckHook` checks the annotations before training, also in runs of mmdet's own tools."""

from __future__ import annotations

import json

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mixdet import launch
from mixdet.data_check import check_config_data
from mixdet.errors import MixDetError
from tests.conftest import ROOT
from tests.tiny import write_config

HOOK = "default_hooks['data_check'] = dict(type='DataCheckHook')\n"
ON_TRAINING_DATA = (
    "test_dataloader.dataset.ann_file=annotations/instances_train2017.json",
    "test_dataloader.dataset.data_prefix.img=train2017/",
)

pytestmark = pytest.mark.usefixtures("quick")


def train(tmp_path, data, change):
    """Change the annotations and train as mmdet's own tools/train.py does; return the log."""
    file = data / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    config = write_config(tmp_path, data, epochs=1, extra=HOOK)
    Runner.from_cfg(Config.fromfile(config)).train()
    (log,) = (tmp_path / "work").glob("*/*.log")
    return log.read_text()


def test_a_misspelled_class_stops_the_run_before_the_first_step(images_copy, tmp_path):
    def misspell(content):
        content["categories"][1]["name"] = "brigth"

    with pytest.raises(MixDetError, match=r"bright, did you mean brigth\?.*check_data") as error:
        train(tmp_path, images_copy, misspell)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("scalars.json"))


def test_training_goes_on_with_a_warning_for_each_lesser_fault(images_copy, tmp_path):
    def change(content):
        content["annotations"][0]["bbox"] = [60, 2, 9, 9]
        content["annotations"][1]["image_id"] = 999

    log = train(tmp_path, images_copy, change)
    lines = [line for line in log.splitlines() if "training data: " in line]
    assert ["WARNING" in line for line in lines] == [True, True, False]
    assert "14 of 14 images are used, with 20 objects: dark" in lines[2]
    assert (tmp_path / "work" / "epoch_1.pth").is_file()


def test_shipped_configs_have_the_hooks_that_detect_faults_in_a_run():
    hooks = Config.fromfile(ROOT / "configs" / "ssdlite_mixnet_s_coco.py").default_hooks
    assert {"data_check", "finite_loss", "sync_buffers"} <= hooks.keys()


@pytest.fixture
def no_runner(monkeypatch):
    """Fail if a runner is built. Building a runner also builds the model."""

    def refuse(cfg):
        raise AssertionError("a runner was built")

    monkeypatch.setattr(Runner, "from_cfg", refuse)


def config_with(tmp_path, images, extra=""):
    return str(write_config(tmp_path, images, epochs=1, extra=HOOK + extra))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train_dataloader['dataset']['metainfo'] = dict(classes=('dark'))\n", "with a comma"),
        (
            "train_dataloader.update(batch_size=20, drop_last=True)\n",
            "batch_size to 14",
        ),
        ("val_evaluator = dict(val_evaluator, ann_file='no.json')\n", "(no.json) does not exist"),
    ],
)
@pytest.mark.usefixtures("no_runner")
def test_training_is_refused_in_one_line_before_the_model_is_built(
    images, tmp_path, setting, words
):
    with pytest.raises(MixDetError) as error:
        launch.train(config_with(tmp_path, images, setting))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("no_runner")
def test_a_test_on_other_images_than_those_of_the_metric_is_refused(trained, images, tmp_path):
    config = config_with(tmp_path, images)
    with pytest.raises(MixDetError, match=r"other images: set test_evaluator\.ann_file to .*train"):
        launch.evaluate(config, str(trained[1]), cfg_options=ON_TRAINING_DATA)


def test_the_hook_refuses_wrong_data_in_mmdets_own_tools_too(images, tmp_path):
    """The hook refuses wrong data if mmdet's tools build the runner, without launch.py's check."""
    cfg = Config.fromfile(config_with(tmp_path, images))
    cfg.merge_from_dict(dict(option.split("=") for option in ON_TRAINING_DATA))
    with pytest.raises(MixDetError, match="belong to other images"):
        Runner.from_cfg(cfg).test()

    wrong = "train_dataloader['dataset']['metainfo'] = dict(classes='dark')\n"
    cfg = Config.fromfile(config_with(tmp_path, images, wrong))
    # The error must not take the text 'dark' for four classes with one letter each.
    with pytest.raises(MixDetError, match="with a comma"):
        Runner.from_cfg(cfg).train()

    wrong = "val_dataloader['dataset']['indices'] = []\n"
    wrong += "train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)\n"
    cfg = Config.fromfile(config_with(tmp_path, images, wrong))
    with pytest.raises(MixDetError, match=r"validation data: .* no image remains"):
        Runner.from_cfg(cfg).train()


def test_a_run_of_our_training_tool_reads_the_annotations_once(images, tmp_path, monkeypatch):
    calls = []
    check = check_config_data.read_splits
    monkeypatch.setattr(
        check_config_data, "read_splits", lambda *args: calls.append(args) or check(*args)
    )
    launch.train(config_with(tmp_path, images))
    assert len(calls) == 1
    (log,) = (tmp_path / "work").glob("*/*.log")
    assert "training data: 14 of 14 images are used" in log.read_text()
