"""A batch size that differs from the recipe's is logged, and batches of one image can be used."""

from __future__ import annotations

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mixdet import launch
from mixdet.config.shipped import config_names
from mixdet.errors import MixDetError
from tests.conftest import ROOT
from tests.tiny import write_config

pytestmark = pytest.mark.usefixtures("quick")

HOOK = "default_hooks['total_batch'] = dict(type='TotalBatchHook')\n"
RECIPE = HOOK + "auto_scale_lr = dict(enable=False, base_batch_size={})\n"
WORDS = "The recipe's learning rate is for batches of"


def run(folder, images, extra, **arguments):
    """Train an epoch; return the log and the learning rate of each iteration."""
    launch.train(str(write_config(folder, images, 1, extra)), **arguments)
    (log,) = folder.glob("work/*/*.log")
    (scalars,) = folder.glob("work/*/vis_data/scalars.json")
    return log.read_text(), [
        entry["lr"] for entry in map(json.loads, scalars.open()) if "lr" in entry
    ]


def test_another_batch_is_logged_and_the_rate_is_scaled_on_request(images, tmp_path):
    log, plain = run(tmp_path / "plain", images, RECIPE.format(16))
    assert f"{WORDS} 16 images, but the batches of this run have 4" in log
    assert "multiplies the learning rate by 0.25" in log
    log, scaled = run(tmp_path / "scaled", images, RECIPE.format(16), auto_scale_lr=True)
    assert WORDS not in log
    assert scaled == pytest.approx([rate / 4 for rate in plain])  # the warm-up scales too
    assert plain[0] > 0


def test_accumulated_gradients_are_part_of_the_batch(images, tmp_path):
    accumulate = "optim_wrapper['accumulative_counts'] = 4\n"
    log, _ = run(tmp_path, images, RECIPE.format(16) + accumulate)
    assert WORDS not in log


@pytest.mark.parametrize("loop", ["ResumableTrainLoop", "EpochBasedTrainLoop"])
def test_the_rate_is_scaled_by_the_batch_with_accumulated_gradients(images, tmp_path, loop):
    """Two accumulated batches of 4 images are a quarter of 32, so the rate is divided by 4."""
    accumulate = f"optim_wrapper['accumulative_counts'] = 2\ntrain_cfg['type'] = '{loop}'\n"
    log, plain = run(tmp_path / "plain", images, RECIPE.format(32) + accumulate)
    assert "multiplies the learning rate by 0.25" in log
    extra = RECIPE.format(32) + accumulate
    log, scaled = run(tmp_path / "scaled", images, extra, auto_scale_lr=True)
    assert "Scaling the original LR by 0.25" in log
    assert "auto_scale_lr has multiplied" not in log
    assert scaled == pytest.approx([rate / 4 for rate in plain])


def test_a_factor_without_the_accumulated_gradients_is_logged(images, tmp_path):
    """mmdet's tools with a loop of mmengine scale the rate without the accumulated gradients."""
    extra = RECIPE.format(32).replace("False", "True") + (
        "optim_wrapper['accumulative_counts'] = 2\ntrain_cfg['type'] = 'EpochBasedTrainLoop'\n"
    )
    cfg = Config.fromfile(write_config(tmp_path, images, 1, extra))
    Runner.from_cfg(cfg).train()
    (log,) = tmp_path.glob("work/*/*.log")
    assert "multiplied the learning rate by 0.125" in log.read_text()
    assert "0.25 is right for 8 images" in log.read_text()


def test_scaling_without_the_batch_of_the_recipe_is_refused(images, tmp_path):
    config = write_config(tmp_path, images)
    with pytest.raises(MixDetError, match="--auto-scale-lr: the config does not say"):
        launch.train(str(config), auto_scale_lr=True)


@pytest.mark.parametrize("batch", [13, 1])  # of 14 images: 13 + 1, or 14 batches of one
def test_a_last_batch_of_one_image_and_batches_of_one_image_can_be_trained(images, tmp_path, batch):
    _, rates = run(tmp_path, images, f"train_dataloader['batch_size'] = {batch}\n")
    assert len(rates) == (2 if batch == 13 else 14)


def one_image_config(page_block: bool) -> Config:
    cfg = Config.fromfile(ROOT / "configs/ssdlite_mobilenet_v2_coco.py")
    if page_block:
        page = (ROOT / "docs/custom_data.md").read_text()
        (block,) = (part for part in page.split("```") if "# a batch of one" in part)
        cfg.merge_from_dict(Config.fromstring(block.removeprefix("python\n"), ".py").to_dict())
    return cfg


def loss_of_one_image(cfg: Config) -> torch.Tensor:
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    sample = DetDataSample(metainfo={"img_shape": (320, 320), "pad_shape": (320, 320)})
    boxes = torch.tensor([[10.0, 10.0, 160.0, 200.0]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([3]))
    model = MODELS.build(cfg.model)
    model.train()
    torch.manual_seed(0)
    losses = model.loss(torch.randn(1, 3, 320, 320), [sample])
    return model.parse_losses(losses)[0]


def test_batch_norm_refuses_one_image_and_group_norm_accepts_it():
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        loss_of_one_image(one_image_config(page_block=False))
    loss = loss_of_one_image(one_image_config(page_block=True))
    assert torch.isfinite(loss)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/_base_/schedules").glob("*.py")))
def test_every_recipe_clips_gradients_and_states_its_batch_size(path):
    cfg = Config.fromfile(path)
    assert cfg.optim_wrapper.clip_grad.max_norm > 0
    assert cfg.auto_scale_lr.base_batch_size > 0


@pytest.mark.parametrize("path", sorted(config_names().values()), ids=lambda path: path.stem)
def test_every_shipped_config_drops_a_last_batch_of_one(path):
    cfg = Config.fromfile(path)
    assert cfg.train_dataloader.batch_size > 1
    assert cfg.train_dataloader.drop_last
