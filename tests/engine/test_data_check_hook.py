"""The hook checks the annotations before training, even if mmdet's own tools start it."""

from __future__ import annotations

import json

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mixdet.errors import MixDetError
from tests.conftest import ROOT
from tests.tiny import write_config

pytestmark = pytest.mark.usefixtures("quick")


def train(tmp_path, data, change):
    """Change the annotations and train as mmdet's own tools/train.py does; return the log."""
    file = data / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    hook = "default_hooks['data_check'] = dict(type='DataCheckHook')\n"
    config = write_config(tmp_path, data, epochs=1, extra=hook)
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
