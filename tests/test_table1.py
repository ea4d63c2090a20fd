"""The configs in configs/table1 build TensorFlow's SSDLite, and differ only in the backbone.

The tests call these configs rows. They are the rows of table 1 of the MixConv paper, and three
MixNets.
"""

from __future__ import annotations

import mixdet.plugin

import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config
from mmengine.structures import InstanceData
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from mixdet.analysis.paper import TABLE_1
from tests.conftest import ROOT
from tests.test_configs import differences

FOLDER = ROOT / "configs/table1"
MIXNETS = [f"ssdlite_mixnet_{arch}_tf_coco" for arch in "sml"]
V2 = "ssdlite_mobilenet_v2_3x3_coco"


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / f"{name}.py")


@pytest.fixture(scope="module")
def head() -> torch.nn.Module:
    return MODELS.build(load(V2).model).bbox_head


@pytest.fixture(scope="module")
def anchors(head) -> torch.Tensor:
    grids = [(g, g) for g in (20, 10, 5, 3, 2, 1)]
    return torch.cat(head.prior_generator.grid_priors(grids, device="cpu"))


def random_boxes(count: int) -> torch.Tensor:
    corners = torch.rand(count, 2, 2) * 320
    return torch.cat([corners.amin(1), corners.amax(1) + 1], 1)


def test_the_folder_has_all_rows():
    assert {path.stem for path in FOLDER.glob("*.py")} == {*TABLE_1, *MIXNETS}


@pytest.mark.parametrize("name", [*TABLE_1, *MIXNETS])
def test_a_row_differs_only_in_its_backbone(name: str):
    """MobileNetV1 also differs in the normalization of images, which its weights require."""
    keys = differences(load(V2).to_dict(), load(name).to_dict())
    allowed = {f"model.backbone.{key}" for key in ("type", "kernel_sizes", "arch", "taps")}
    if "_v1_" in name:
        allowed |= {f"model.data_preprocessor.{key}" for key in ("mean", "std")}
    assert keys <= allowed


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("ssdlite_mobilenet_v1_mix357_coco", (512, 1024)),
        ("ssdlite_mobilenet_v2_mix357_coco", (576, 1280)),
        ("ssdlite_mixnet_m_tf_coco", (720, 1536)),
    ],
)
def test_the_levels_have_the_channels_and_cells_of_tensorflow(name: str, channels: tuple[int, int]):
    model = MODELS.build(load(name).model).eval()
    with torch.no_grad():
        levels = model.extract_feat(torch.zeros(1, 3, 320, 320))
    assert [level.shape[1] for level in levels] == [*channels, 512, 256, 256, 128]
    assert [level.shape[2] for level in levels] == [20, 10, 5, 3, 2, 1]
    assert model.bbox_head.cls_convs[0][-1].out_channels == 3 * 81
    kernels = {m.kernel_size for m in model.bbox_head.modules() if isinstance(m, torch.nn.Conv2d)}
    assert kernels == {(3, 3), (1, 1)}, "only the backbone's kernels are mixed"


def test_boxes_are_coded_as_in_torchvision_with_weights_10_10_5_5(head, anchors):
    boxes = random_boxes(len(anchors))
    reference = BoxCoder((10.0, 10.0, 5.0, 5.0))
    deltas = head.bbox_coder.encode(anchors, boxes)
    torch.testing.assert_close(deltas, reference.encode_single(boxes, anchors), rtol=0, atol=1e-4)
    deltas = torch.randn(len(anchors), 4)
    torch.testing.assert_close(
        head.bbox_coder.decode(anchors, deltas),
        reference.decode_single(deltas, anchors),
        rtol=1e-4,
        atol=1e-3,
    )


def test_every_true_box_gets_its_best_anchor(anchors):
    assigner = TASK_UTILS.build(load(V2).model.train_cfg.assigner)
    truths = random_boxes(12)
    truths[0] = torch.tensor([3.0, 3.0, 9.0, 8.0])  # too small for IoU 0.5 with any anchor
    assigned = assigner.assign(
        InstanceData(priors=anchors), InstanceData(bboxes=truths, labels=torch.zeros(12).long())
    ).gt_inds
    overlaps = box_iou(truths, anchors)
    assert overlaps[0].max() < 0.5
    expected = torch.where(overlaps.amax(0) >= 0.5, overlaps.argmax(0) + 1, 0)
    # If two true boxes have the same best anchor, the later one gets it.
    for index, best in enumerate(overlaps.argmax(1), 1):
        expected[best] = index
    assert torch.equal(assigned, expected)


def test_post_processing_losses_and_norms_are_those_of_tensorflow(head):
    config = load(V2).model
    assert config.test_cfg.nms == dict(type="nms", iou_threshold=0.6)
    assert (config.test_cfg.max_per_img, config.test_cfg.score_thr) == (100, 1e-8)
    assert (head.loss_cls.alpha, head.loss_cls.gamma) == (0.75, 2.0)
    assert (head.loss_bbox.beta, head.loss_bbox.loss_weight) == (1.0, 0.25)
    norms = [m for m in MODELS.build(config).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(0.001, 0.03)}


@pytest.mark.parametrize("recipe", ["coco_tf_400k", "coco_tf_1gpu"])
def test_a_recipe_has_the_iterations_and_rate_that_it_states(recipe: str):
    """The recipe's docstring states the iterations. The augmentation only crops and flips."""
    path = ROOT / f"configs/_base_/schedules/{recipe}.py"
    config = Config.fromfile(path)
    gpus = config.auto_scale_lr.base_batch_size // config.train_dataloader.batch_size
    iterations = 117_266 // config.auto_scale_lr.base_batch_size
    total = config.train_cfg.max_epochs * iterations
    text = path.read_text()
    assert f"{gpus} GPU" in text
    assert f"{iterations}" in text
    assert f"{total:,}" in text
    assert config.optim_wrapper.optimizer.lr / config.auto_scale_lr.base_batch_size == 0.4 / 512
    (random,) = (step for step in config.train_pipeline if step.type not in PLAIN)
    assert (random.type, random.expand_ratio, random.photometric) == ("SSDRandomCrop", None, None)
    assert config.train_dataloader.dataset.pipeline == config.train_pipeline


PLAIN = {"SeedSample", "PackChannelsLast"}  # transforms that leave the image as it is


def test_the_rows_use_the_recipe_for_one_gpu():
    rows = load(V2)
    recipe = Config.fromfile(ROOT / "configs/_base_/schedules/coco_tf_1gpu.py")
    for key, value in recipe.items():
        assert rows[key] == value, key


def test_same_padding_keeps_weights_and_shapes():
    config = load("ssdlite_mobilenet_v2_mix357_coco")
    symmetric = MODELS.build(config.model)
    config.merge_from_dict(
        {"model.backbone.padding": "same", "model.neck.conv_cfg": {"type": "Conv2dAdaptivePadding"}}
    )
    same = MODELS.build(config.model)
    same.load_state_dict(symmetric.state_dict())
    images = torch.randn(2, 3, 320, 320)
    with torch.no_grad():
        levels, others = symmetric.extract_feat(images), same.extract_feat(images)
    for level, other in zip(levels, others, strict=True):
        assert level.shape == other.shape
        assert not torch.allclose(level, other)
