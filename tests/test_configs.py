"""Every shipped config builds a model that trains and predicts, and agrees with related configs."""

from __future__ import annotations

from pathlib import Path

import mixdet.plugin

import mmdet
import pytest
import torch
import yaml
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData

from mixdet.models.backbones.base import StagedBackbone
from mixdet.models.weight_init import timm_normalization
from tests.conftest import ROOT

FOLDER = ROOT / "configs"
CONFIGS = sorted(path for path in FOLDER.rglob("*.py") if "_base_" not in path.parts)


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / f"{name}.py")


def test_basenames_are_unique():
    """A work folder has the name of its config, so no two configs may have the same name."""
    names = [path.stem for path in CONFIGS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_a_model_that_trains_and_predicts(path: Path):
    config = Config.fromfile(path)
    if config.model.backbone.get("init_cfg", {}).get("type") == "TimmPretrained":
        config.model.backbone.init_cfg = None  # do not download weights
    side = 128  # small and fast, but every level has cells
    if "input_size" in config.model:
        config.model.input_size = side
    model = MODELS.build(config.model)
    size = (side, side)
    torch.manual_seed(0)
    samples = []
    for _ in range(2):
        sample = DetDataSample(
            metainfo=dict(
                img_shape=size,
                pad_shape=size,
                ori_shape=size,
                batch_input_shape=size,
                scale_factor=(1.0, 1.0),
                img_id=0,
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 10.0, 60.0, 80.0]]), labels=torch.tensor([3])
        )
        samples.append(sample)
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    data = dict(inputs=list(images), data_samples=samples)

    losses = model.loss(**unpack(model, data, True))
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    if isinstance(model.backbone, StagedBackbone):  # mmdet's MobileNetV2 has unused layers
        without = [name for name, p in model.named_parameters() if p.grad is None]
        assert without == [], "parameters that no loss reaches break distributed training"

    model.eval()
    model.bbox_head.test_cfg.score_thr = 0  # untrained scores are below a usual threshold
    with torch.no_grad():
        results = model.predict(**unpack(model, data, False))
    classes = model.bbox_head.num_classes
    assert all(len(r.pred_instances) for r in results)
    assert all((r.pred_instances.labels < classes).all() for r in results)


def unpack(model: torch.nn.Module, data: dict, training: bool) -> dict:
    data = model.data_preprocessor(data, training)
    return dict(batch_inputs=data["inputs"], batch_data_samples=data["data_samples"])


def resize_scale(config: Config) -> tuple[int, int]:
    """Return the (height, width) to which the test pipeline resizes images."""
    step = next(s for s in config.test_dataloader.dataset.pipeline if s["type"] == "Resize")
    width, height = step["scale"]
    return height, width


@pytest.mark.parametrize(
    "path", [p for p in CONFIGS if Config.fromfile(p).model.type == "SSDLite"], ids=lambda p: p.stem
)
def test_the_test_pipeline_resizes_to_the_input_size_of_the_model(path: Path):
    config = Config.fromfile(path)
    assert resize_scale(config) == (config.model.input_size,) * 2


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_images_are_normalized_as_the_pretrained_weights_expect(path: Path):
    config = Config.fromfile(path)
    name = getattr(MODELS.build(config.model.backbone), "timm_name", None)
    if name is None:
        pytest.skip("timm has no weights for this backbone")
    preprocessor = config.model.data_preprocessor
    assert preprocessor.bgr_to_rgb, "mmdet reads BGR, timm's weights were trained on RGB"
    mean, std = timm_normalization(name)
    assert preprocessor.mean == pytest.approx(mean, abs=1e-3)
    assert preprocessor.std == pytest.approx(std, abs=1e-3)


def differences(a: dict, b: dict, prefix: str = "") -> set[str]:
    """Return the dotted keys in which two configs differ."""
    keys = set()
    for key in a.keys() | b.keys():
        name = f"{prefix}{key}"
        if key not in a or key not in b:
            keys.add(name)
        elif isinstance(a[key], dict) and isinstance(b[key], dict):
            keys |= differences(a[key], b[key], name + ".")
        elif a[key] != b[key]:
            keys.add(name)
    return keys


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("ssdlite_mixnet_s_coco", {"model.backbone.arch"}),
        ("ssdlite_mixnet_l_coco", {"model.backbone.arch"}),
        ("ssdlite_mixnet_m_plainhead_coco", {"model.bbox_head.kernel_sizes"}),
        ("ssdlite_mobilenet_v2_coco", {"model.backbone", "model.bbox_head.kernel_sizes"}),
    ],
)
def test_compared_configs_differ_only_in_backbone_and_kernels(name: str, allowed: set[str]):
    ours, other = (ConfigDict(load(n).to_dict()) for n in ("ssdlite_mixnet_m_coco", name))
    keys = differences(ours, other)
    assert keys, "the two configs are equal"
    assert {key for key in keys if not any(key.startswith(a) for a in allowed)} == set()


def test_the_augmentation_equals_that_of_mmdets_recipe():
    """`SSDRandomCrop` combines the steps of ssdlite_mobilenetv2-scratch in one transform."""
    configs = Path(mmdet.__file__).parent / ".mim/configs"
    name = "ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py"
    theirs = {step.pop("type"): step for step in Config.fromfile(configs / name).train_pipeline}
    steps = load("ssdlite_mixnet_m_coco").train_dataloader.dataset.pipeline
    (ours,) = (step for step in steps if step["type"] == "SSDRandomCrop")
    assert theirs["Expand"].to_rgb, "our fill color is in RGB, mmdet's must be too"
    assert {key: ours[key] for key in ("expand_ratio", "fill")} == {
        "expand_ratio": theirs["Expand"].ratio_range,
        "fill": theirs["Expand"].mean,
    }
    assert {key: ours[key] for key in ("min_ious", "min_crop_size")} == theirs["MinIoURandomCrop"]
    assert ours["scale"] == theirs["Resize"].scale
    assert theirs["Resize"].keep_ratio is False
    assert ours["flip_prob"] == theirs["RandomFlip"].prob
    assert ours["photometric"] == theirs["PhotoMetricDistortion"]
    assert "expand_prob" not in ours, "leave it at its default of 0.5, as in mmdet"


def test_the_baseline_has_3x3_kernels_only():
    model = MODELS.build(load("ssdlite_mobilenet_v2_coco").model)
    depthwise = [
        m.kernel_size
        for m in model.modules()
        if isinstance(m, torch.nn.Conv2d) and m.groups == m.in_channels > 1
    ]
    assert set(depthwise) == {(3, 3)}


def test_the_metafile_states_every_config_and_its_numbers():
    """mim and OpenMMLab's tools read model-index.yml."""
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())
    (metafile,) = (yaml.safe_load((ROOT / path).read_text()) for path in index["Import"])
    models = {model["Name"]: model for model in metafile["Models"]}
    assert models.keys() == {path.stem for path in CONFIGS}
    collections = {collection["Name"] for collection in metafile["Collections"]}
    for name, model in models.items():
        path = ROOT / model["Config"]
        config, stated = Config.fromfile(path), model["Metadata"]
        assert path.stem == name
        assert model["In Collection"] in collections
        assert stated["Epochs"] == config.train_cfg.max_epochs
        assert stated["Batch Size"] == config.auto_scale_lr.base_batch_size
        built = MODELS.build(config.model)
        assert stated["Parameters"] == sum(p.numel() for p in built.parameters()), name


@pytest.mark.parametrize(
    "name",
    [
        "ssdlite_mixnet_s_digits",
        "ssdlite_mobilenet_v2_mmdet_digits",  # mmdet's SSDHead
        "retinanet_mixnet_m_fpn_coco",
    ],
)
def test_background_on_an_ignored_box_is_not_learned(name: str):
    config = load(name)
    config.model.backbone.init_cfg = None
    head = MODELS.build(config.model).bbox_head
    side, classes = 160, head.cls_out_channels
    grids = [(-(-side // stride[0]),) * 2 for stride in head.prior_generator.strides]
    anchors = torch.cat(head.prior_generator.grid_priors(grids, device="cpu"))
    right_half = torch.tensor([[80.0, 0.0, 160.0, 160.0]])
    corners = torch.minimum(anchors[:, 2:], right_half[:, 2:])
    sides = (corners - torch.maximum(anchors[:, :2], right_half[:, :2])).clamp(min=0)
    on_ignored = sides.prod(1) > 0.5 * (anchors[:, 2:] - anchors[:, :2]).prod(1)
    # SSD heads learn background from the anchors with the largest losses. The anchors on the
    # ignored box get the largest losses here.
    logits = torch.zeros(len(anchors), classes)
    logits[on_ignored, 0] = 5
    truth = InstanceData(bboxes=torch.tensor([[10.0, 30.0, 50.0, 90.0]]), labels=torch.tensor([1]))
    meta = dict(img_shape=(side, side), pad_shape=(side, side), batch_input_shape=(side, side))

    def learned(ignored: torch.Tensor) -> torch.Tensor:
        """Return whether the class loss depends on the logits of each anchor."""
        values = logits.clone().requires_grad_()
        maps, deltas, start = [], [], 0
        for (height, width), number in zip(
            grids, head.prior_generator.num_base_priors, strict=True
        ):
            end = start + height * width * number
            level = values[start:end].reshape(1, height, width, number * classes)
            maps.append(level.permute(0, 3, 1, 2))
            deltas.append(torch.zeros(1, number * 4, height, width))
            start = end
        ignored_boxes = [InstanceData(bboxes=ignored)]
        losses = head.loss_by_feat(maps, deltas, [truth], [meta], ignored_boxes)["loss_cls"]
        losses = losses if isinstance(losses, list) else [losses]  # mmdet's heads return a list
        sum(loss.sum() for loss in losses).backward()
        return values.grad.abs().sum(1) > 0

    assert learned(right_half[:0])[on_ignored].any()
    assert not learned(right_half)[on_ignored].any()
    assert learned(right_half)[~on_ignored].any()
