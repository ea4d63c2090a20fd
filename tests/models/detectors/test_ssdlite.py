"""`SSDLite` fills in channels and strides. The baseline config builds the same model as mmdet's."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import mixdet.plugin

import mmdet
import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config

from mixdet.config.read import read_config
from mixdet.errors import MixDetError
from tests.conftest import ROOT
from tests.synthetic import random_batch

RECIPE = {
    *("train_dataloader", "val_dataloader", "val_evaluator", "optim_wrapper", "param_scheduler"),
    *("train_cfg", "val_cfg", "default_hooks", "env_cfg", "randomness", "auto_scale_lr"),
}


def model_config(name: str = "ssdlite_mixnet_m_coco") -> dict:
    return Config.fromfile(ROOT / f"configs/{name}.py").model


def mmdet_baseline() -> dict:
    """Return the model of the SSDLite config that mmdet ships."""
    configs = Path(mmdet.__file__).parent / ".mim/configs"
    return Config.fromfile(configs / "ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py").model


def test_baseline_equals_mmdets_own_model():
    """The parameters, the scores, the offsets and the boxes before NMS are equal."""
    torch.manual_seed(0)
    config, reference = model_config("ssdlite_mobilenet_v2_coco"), mmdet_baseline()
    ours, theirs = MODELS.build(config), MODELS.build(reference)
    assert reference.train_cfg.pop("smoothl1_beta") == ours.bbox_head.loss_bbox.beta
    # tests/datasets/test_data_preprocessor.py shows that both preprocessors give the same images
    config.data_preprocessor.type = reference.data_preprocessor.type
    for part in ("train_cfg", "test_cfg", "data_preprocessor"):
        assert config[part] == reference[part], part
    count = sum(p.numel() for p in theirs.parameters())
    assert sum(p.numel() for p in ours.parameters()) == count
    state = theirs.state_dict()
    for value in state.values():
        if value.dim() == 1:
            value.copy_(torch.rand_like(value) * 0.4 + 0.8)
    # the two state dicts have different names, but the same order
    names = list(ours.state_dict())
    assert len(names) == len(state)
    ours.load_state_dict(dict(zip(names, state.values(), strict=True)))
    ours.eval(), theirs.eval()

    images = torch.randn(2, 3, 320, 320)
    with torch.no_grad():
        outputs, expected = ours.bbox_head(ours.extract_feat(images)), theirs(images)
    for level, reference in zip(outputs[0] + outputs[1], expected[0] + expected[1], strict=True):
        torch.testing.assert_close(level, reference, rtol=1e-5, atol=1e-5)

    def boxes(head: torch.nn.Module, deltas: list[torch.Tensor]) -> torch.Tensor:
        priors = head.prior_generator.grid_priors([d.shape[-2:] for d in deltas], device="cpu")
        first = torch.cat([level[0].permute(1, 2, 0).reshape(-1, 4) for level in deltas])
        return head.bbox_coder.decode(torch.cat(priors), first, max_shape=(320, 320))

    torch.testing.assert_close(
        boxes(ours.bbox_head, outputs[1]),
        boxes(theirs.bbox_head, expected[1]),
        rtol=1e-5,
        atol=1e-3,  # pixels
    )


@pytest.mark.parametrize(
    "backbone",
    [
        dict(type="MixNet", arch="l", taps=("stage3", "stage5", "head")),
        dict(type="MixMobileNetV2", kernel_sizes=(3, 5, 7), taps=("stage6.expansion", "head")),
        dict(type="MobileNetV2", out_indices=(4, 7)),  # mmdet's class, which has no `out_channels`
        dict(type="ResNet", depth=18, out_indices=(2, 3)),
    ],
    ids=["mixnet", "expansion", "mmdet", "resnet"],
)
def test_any_backbone_fits_without_channels_in_the_config(backbone):
    config = model_config()
    config.backbone = backbone
    anchors = config.bbox_head.anchor_generator
    if len(backbone.get("taps", ())) == 3:
        config.neck.update(
            extra_channels=(256, 128, 128), level_strides=(2,) * 3, level_paddings=(1,) * 3
        )
    before = copy.deepcopy(config.to_dict())
    model = MODELS.build(config)
    assert config.to_dict() == before
    assert anchors.get("strides") is None

    levels = model.eval().extract_feat(torch.zeros(1, 3, 320, 320))
    assert model.bbox_head.in_channels == tuple(level.shape[1] for level in levels)
    strides = [stride[0] for stride in model.bbox_head.prior_generator.strides]
    assert strides == [round(320 / level.shape[-1]) for level in levels]
    scores, _ = model.bbox_head(levels)
    assert len(scores) == 6


def test_the_option_arch_gives_the_network_of_the_larger_config():
    """`--cfg-options model.backbone.arch=l` turns the config of MixNet-S into that of MixNet-L."""
    config = Config.fromfile(ROOT / "configs/ssdlite_mixnet_s_coco.py")
    config.merge_from_dict({"model.backbone.arch": "l"})
    large = MODELS.build(config.model)
    expected = MODELS.build(model_config("ssdlite_mixnet_l_coco"))
    assert [p.shape for p in large.parameters()] == [p.shape for p in expected.parameters()]


def test_building_changes_neither_statistics_nor_training_mode():
    config = model_config()
    config.backbone = dict(type="MobileNetV2", out_indices=(4, 7))
    model = MODELS.build(config)
    assert model.training
    assert model.backbone.training
    for name, value in model.named_buffers():
        if "running" in name:
            assert torch.equal(value, torch.full_like(value, float("var" in name))), name


def test_wrong_number_of_levels_is_refused():
    config = model_config()
    config.neck.update(extra_channels=(512, 256), level_strides=(2, 2), level_paddings=(1, 1))
    with pytest.raises(MixDetError, match=r"min_sizes has 6 entries.* 4 levels"):
        MODELS.build(config)


def test_images_of_another_size_are_refused():
    """The anchors fit one image size. At another size, boxes would be wrong without an error."""
    model = MODELS.build(model_config("ssdlite_mixnet_s_digits"))
    for run in (model.loss, model.predict):
        with pytest.raises(MixDetError, match=r"images of 192x160, but .* model.input_size=160"):
            run(torch.zeros(1, 3, 160, 192), [])


@pytest.mark.parametrize(
    "size",
    [1, 0, -320, True, 320.0, "320", None, (320,), (320, 16), (320, 192, 3), (320, 192.0), 10**6],
)
def test_an_input_size_that_is_no_size_is_refused(size):
    config = model_config("ssdlite_mixnet_s_digits")
    config.input_size = size
    with pytest.raises(MixDetError) as refusal:
        MODELS.build(config)
    assert str(refusal.value).startswith(f"model.input_size={size!r}: ")


def test_a_size_too_small_for_the_necks_convolutions_is_refused():
    """The last levels of SSD300 have 3x3 convolutions without padding."""
    config = model_config("ssdlite_mixnet_s_coco")
    config.neck.level_paddings = (0,) * 4
    config.input_size = (320, 64)
    with pytest.raises(
        MixDetError, match=r"model.neck .* 20x4, 10x2 cells.*input_size=\(320, 64\)"
    ):
        MODELS.build(config)


@pytest.mark.parametrize("anchors", [None, dict(type="TFSSDAnchorGenerator")])
@pytest.mark.parametrize("wide", [True, False], ids=["wide", "tall"])
def test_the_anchors_of_an_image_that_is_not_square_lie_at_their_cells(anchors, wide):
    """A wide image of 320 x 192 has 20 x 12, 10 x 6, 5 x 3, 3 x 2, 2 x 1 and 1 x 1 cells.

    mmdet's generator takes strides in whole pixels. The generator of TensorFlow's anchors divides
    the image exactly.
    """
    config = model_config("ssdlite_mixnet_s_coco")
    config.input_size = (320, 192) if wide else (192, 320)
    if anchors:
        config.bbox_head.anchor_generator = anchors
    model = MODELS.build(config).eval()
    shape = (192, 320) if wide else (320, 192)
    grids = [level.shape[-2:] for level in model.extract_feat(torch.zeros(1, 3, *shape))]
    by_hand = [(12, 20), (6, 10), (3, 5), (2, 3), (1, 2), (1, 1)]  # (rows, columns)
    assert grids == [grid if wide else grid[::-1] for grid in by_hand]
    levels = model.bbox_head.prior_generator.grid_priors(grids, device="cpu")
    for level, (rows, columns) in zip(levels, grids, strict=True):
        boxes = level.view(rows, columns, -1, 4)
        y, x = shape[0] / rows, shape[1] / columns
        if not anchors:
            y, x = round(y), round(x)
        for row, column in ((0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)):
            centers = (boxes[row, column, :, :2] + boxes[row, column, :, 2:]) / 2
            expected = torch.tensor([(column + 0.5) * x, (row + 0.5) * y])
            torch.testing.assert_close(centers, expected.expand_as(centers), rtol=0, atol=1e-3)


def test_a_square_size_given_as_a_number_or_as_a_pair_gives_the_anchors_of_mmdet():
    config = model_config("ssdlite_mixnet_s_coco")
    square = MODELS.build(config).bbox_head.prior_generator
    settings = dict(config.bbox_head.anchor_generator, strides=[16, 32, 64, 107, 160, 320])
    config.input_size = (320, 320)
    pair = MODELS.build(config).bbox_head.prior_generator
    for generator in (pair, TASK_UTILS.build(settings)):
        for a, b in zip(square.base_anchors, generator.base_anchors, strict=True):
            assert torch.equal(a, b)


def test_anchors_of_a_larger_image_are_larger():
    """At 416 x 416 an anchor covers the same part of the image as at 320 x 320."""
    small, large = (
        MODELS.build(read_config("ssdlite_mixnet_s_coco", size=size).model) for size in (320, 416)
    )
    for a, b in zip(
        small.bbox_head.prior_generator.base_anchors,
        large.bbox_head.prior_generator.base_anchors,
        strict=True,
    ):
        torch.testing.assert_close((b[:, 2:] - b[:, :2]) / 416, (a[:, 2:] - a[:, :2]) / 320)


def test_taps_from_coarse_to_fine_are_refused():
    config = model_config("ssdlite_mixnet_s_digits")
    config.backbone.taps = ("stage6", "stage5", "stage3")
    with pytest.raises(MixDetError, match=r"5x5, 10x10, 20x20 cells.*name the finer taps first"):
        MODELS.build(config)


def test_strides_and_centers_of_the_anchors_follow_the_taps():
    config = model_config("ssdlite_mixnet_s_digits")
    before = MODELS.build(config).bbox_head.prior_generator
    assert [stride[0] for stride in before.strides] == [8, 16, 32]
    assert before.centers == [(4, 4), (8, 8), (16, 16)]
    config.backbone.taps = ("stage2", "stage3")
    after = MODELS.build(config).bbox_head.prior_generator
    assert [stride[0] for stride in after.strides] == [4, 8, 16]
    assert after.centers == [(2, 2), (4, 4), (8, 8)]
    config.bbox_head.anchor_generator.strides = [8, 16, 32]
    with pytest.raises(MixDetError, match=r"strides is \[8, 16, 32\], but .* \[4, 8, 16\]"):
        MODELS.build(config)


def test_the_mmdet_config_for_digits_has_our_anchors_coder_and_matching():
    ours = MODELS.build(model_config("ssdlite_mixnet_s_digits"))
    theirs = MODELS.build(model_config("ssdlite_mobilenet_v2_mmdet_digits"))
    grids = [(20, 20), (10, 10), (5, 5)]
    for a, b in zip(
        ours.bbox_head.prior_generator.grid_priors(grids, device="cpu"),
        theirs.bbox_head.prior_generator.grid_priors(grids, device="cpu"),
        strict=True,
    ):
        assert torch.equal(a, b)
    assert ours.bbox_head.bbox_coder.stds == theirs.bbox_head.bbox_coder.stds
    train_cfg = dict(theirs.train_cfg)
    # MixDet's head does not learn from ignored boxes, even without this threshold.
    train_cfg["assigner"] = {**train_cfg["assigner"], "ignore_iof_thr": -1}
    assert train_cfg.pop("smoothl1_beta") == ours.bbox_head.loss_bbox.beta
    assert ours.train_cfg == train_cfg
    assert ours.test_cfg == theirs.test_cfg


def test_the_two_configs_in_plain_path_train_and_predict_alike():
    """Recipe, network and initialization are equal, so training runs differ only by chance."""
    names = ("in_mixdet", "timm_in_mmdet")
    folder = ROOT / "configs/plain_path"
    configs = [Config.fromfile(folder / f"ssdlite_mixnet_s_{name}_digits.py") for name in names]
    recipes = [{k: v for k, v in c.items() if k in RECIPE} for c in configs]
    assert recipes[0] == recipes[1]
    assert recipes[0].keys() == RECIPE
    assert not any("custom_hooks" in config for config in configs)
    torch.manual_seed(0)
    ours, timm_model = (MODELS.build(config.model) for config in configs)
    for model in (ours, timm_model):
        model.init_weights()
    for mine, theirs in zip(ours.parameters(), timm_model.parameters(), strict=True):
        assert mine.shape == theirs.shape
        if mine.numel() > 1000:
            assert (mine.std() / theirs.std()).item() == pytest.approx(1, rel=0.15)
        assert mine.mean().item() == pytest.approx(theirs.mean().item(), abs=0.1)
    # the two state dicts have different names, but the same order
    ours.load_state_dict(
        dict(zip(ours.state_dict(), timm_model.state_dict().values(), strict=True))
    )
    batch = random_batch(4, 160)
    for sample in batch["data_samples"]:
        sample.gt_instances.labels %= 10
    # the losses depend on preprocessing, anchors, matching, box coder and negative mining
    losses = []
    for model in (ours, timm_model):
        data = model.train().data_preprocessor(batch, training=True)
        _, parsed = model.parse_losses(model(**data, mode="loss"))
        losses.append({name: value.item() for name, value in parsed.items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for model in (ours, timm_model):  # larger weights make the scores of the anchors differ clearly
        for convs in (model.bbox_head.cls_convs, model.bbox_head.reg_convs):
            for block in convs:
                torch.manual_seed(1)
                torch.nn.init.normal_(block[-1].weight, std=0.5)
    with torch.no_grad():
        results = [model.eval().test_step(batch) for model in (ours, timm_model)]
    for mine, theirs in zip(*results, strict=True):
        mine, theirs = mine.pred_instances, theirs.pred_instances
        assert len(mine) == len(theirs) == 100
        torch.testing.assert_close(mine.scores, theirs.scores, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(mine.bboxes, theirs.bboxes, rtol=0, atol=0.05)
        assert torch.equal(mine.labels, theirs.labels)
    norms = [
        Counter((m.momentum, m.eps) for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
        for model in (ours, timm_model)
    ]
    assert norms[0] == norms[1]


def test_channels_last_changes_no_result():
    torch.manual_seed(0)
    config = model_config("ssdlite_mixnet_s_coco")
    model = MODELS.build(config).eval()
    image = torch.randn(1, 3, 320, 320)
    with torch.no_grad():
        fast = model(image)
        model.channels_last = False
        plain = model.to(memory_format=torch.contiguous_format)(image)
    for a, b in zip(fast[0] + fast[1], plain[0] + plain[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
