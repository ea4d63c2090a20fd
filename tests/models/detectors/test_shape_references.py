"""Detectors of mmdet's get the channels and strides that their backbone and their neck give."""

from __future__ import annotations

import copy

import mixdet.plugin

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from torch import nn

from mixdet.config.read import read_config
from mixdet.errors import MixDetError
from tests.conftest import ROOT

TAPS = ("stage2", "stage3", "stage5", "stage6")
CHANNELS, STRIDES = [24, 40, 120, 200], [4, 8, 16, 32]  # MixNet-S: table 4 of the paper


def config_of(name: str = "retinanet_mixnet_m_fpn_coco", options=()) -> ConfigDict:
    return read_config(ROOT / f"configs/{name}.py", options).model


def built(model: dict) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(model)


def test_references_give_the_same_detector_as_the_numbers():
    config = config_of()
    typed = copy.deepcopy(config)
    typed.neck.in_channels = [40, 120, 200]
    typed.bbox_head.anchor_generator.strides = [8, 16, 32, 64, 128]
    before = copy.deepcopy(config.to_dict())
    ours, theirs = built(config), built(typed)
    assert config.to_dict() == before
    assert ours.bbox_head.prior_generator.strides == theirs.bbox_head.prior_generator.strides
    state = theirs.state_dict()
    assert ours.state_dict().keys() == state.keys()
    # Building a part earlier changes neither random weights nor statistics
    assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())
    assert all(module.training for module in ours.modules())


def test_another_backbone_needs_no_other_change():
    small = built(config_of(options=["model.backbone.arch=s"]))
    large = built(config_of(options=["model.backbone.arch=l"]))
    channels = [[conv.conv.in_channels for conv in m.neck.lateral_convs] for m in (small, large)]
    assert channels == [[40, 120, 200], [56, 160, 264]]  # tables 4 and 5 of the paper
    two = config_of(options=["model.backbone.taps=('stage5', 'stage6')"])
    strides = built(two).bbox_head.prior_generator.strides
    assert strides == [(16, 16), (32, 32), (64, 64), (128, 128), (256, 256)]


@pytest.mark.parametrize(
    "backbone",
    [
        dict(type="ResNet", depth=18, out_indices=(1, 2, 3)),  # publishes neither attribute
        dict(type="MixMobileNetV2", kernel_sizes=3, taps=("stage3", "stage5", "stage7")),
    ],
    ids=["resnet", "mobilenet"],
)
def test_any_backbone_can_be_referred_to(backbone):
    config = config_of()
    config.backbone = backbone
    model = built(config).eval()
    assert model.bbox_head.prior_generator.strides == [(2**n, 2**n) for n in range(3, 8)]
    with torch.no_grad():
        assert len(model.bbox_head(model.extract_feat(torch.zeros(1, 3, 64, 64)))[0]) == 5


NECKS = {
    "FPN": dict(type="FPN", in_channels="backbone", out_channels=16, num_outs=5),
    "PAFPN": dict(type="PAFPN", in_channels="backbone", out_channels=16, num_outs=4),
    "NASFPN": dict(
        type="NASFPN", in_channels="backbone", out_channels=16, num_outs=5, stack_times=1
    ),
    "ChannelMapper": dict(type="ChannelMapper", in_channels="backbone", out_channels=16),
    "YOLOXPAFPN": dict(type="YOLOXPAFPN", in_channels="backbone", out_channels=16),
    "CSPNeXtPAFPN": dict(type="CSPNeXtPAFPN", in_channels="backbone", out_channels=16),
    "several": [
        dict(type="FPN", in_channels="backbone", out_channels=16, num_outs=4),
        dict(type="BFP", in_channels=16, num_levels=4, refine_level=1),
    ],
}


@pytest.mark.parametrize("name", NECKS)
def test_necks_get_lists(name):
    config = config_of()
    config.backbone.update(arch="s", taps=TAPS)
    config.bbox_head.update(in_channels="neck[0]", feat_channels=16)
    config.neck = NECKS[name]
    model = built(config)
    assert model.bbox_head.in_channels == 16
    strides = [x for x, _ in model.bbox_head.prior_generator.strides]
    assert strides == [4, 8, 16, 32, 64][: 5 if name in ("FPN", "NASFPN") else 4]


def test_one_entry_and_reversed_lists():
    yolof = dict(
        type="YOLOF",
        backbone=dict(type="MixNet", arch="s", taps=("stage5", "stage6")),
        neck=dict(
            type="DilatedEncoder",
            in_channels="backbone[-1]",
            out_channels=16,
            block_mid_channels=8,
            num_residual_blocks=4,
            block_dilations=[2, 4, 6, 8],
        ),
        bbox_head=dict(
            type="YOLOFHead",
            num_classes=3,
            in_channels=16,
            anchor_generator=dict(
                type="AnchorGenerator", ratios=[1.0], scales=[1], strides="backbone[-1:]"
            ),
        ),
    )
    model = built(yolof)
    assert model.neck.in_channels == 200
    assert model.bbox_head.prior_generator.strides == [(32, 32)]
    neck = dict(
        type="YOLOV3Neck", num_scales=3, in_channels="backbone[::-1]", out_channels=[64, 32, 16]
    )
    yolo = dict(
        type="YOLOV3",
        backbone=dict(type="MixNet", arch="s", taps=TAPS[1:]),
        neck=neck,
        bbox_head=dict(type="YOLOV3Head", num_classes=3, in_channels=[64, 32, 16]),
    )
    maps = built(yolo).eval().extract_feat(torch.zeros(1, 3, 64, 64))
    assert [tuple(level.shape[1:]) for level in maps] == [(64, 2, 2), (32, 4, 4), (16, 8, 8)]


def test_two_stages_and_the_registry_of_mmengine():
    config = Config.fromfile(f"{mmdet_configs()}/faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py").model
    config.backbone = dict(type="MixNet", arch="s", taps=TAPS)
    config.neck.in_channels = "backbone"
    config.rpn_head.anchor_generator.strides = "neck"
    extractor = config.roi_head.bbox_roi_extractor
    extractor.update(out_channels="neck[0]", featmap_strides="neck[:4]")
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = ROOT_MODELS.build(config)  # as the runner builds it
    assert [conv.conv.in_channels for conv in model.neck.lateral_convs] == CHANNELS
    assert model.roi_head.bbox_roi_extractor.featmap_strides == STRIDES
    assert model.roi_head.bbox_roi_extractor.out_channels == 256
    assert [x for x, _ in model.rpn_head.prior_generator.strides] == [*STRIDES, 64]


def mmdet_configs() -> str:
    import mmdet

    return f"{mmdet.__path__[0]}/.mim/configs"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(neck=dict(in_channels="bakbone")), r"model.neck.in_channels='bakbone' is not a ref"),
        (dict(neck=dict(in_channels="backbone[3]")), r"model.backbone has 3 outputs"),
        (dict(neck=dict(in_channels="backbone[]")), r"model.backbone has 3 outputs"),
        (dict(neck=dict(in_channels="backbone[::0]")), r"model.backbone has 3 outputs"),
        (dict(neck=dict(in_channels="neck")), r"this key cannot refer to model.neck"),
        (dict(neck=None), r"strides='neck': there is no model.neck"),
        (
            dict(bbox_head=dict(in_channels="neck.out_channels")),
            r"model.bbox_head.in_channels='neck.out_channels' is not a reference: use \"backbone\"",
        ),
    ],
)
def test_wrong_references_are_refused_in_one_line(change, message):
    config = config_of()
    merged = Config(dict(model=config))
    merged.merge_from_dict(dict(model=change))
    with pytest.raises(MixDetError, match=message) as caught:
        MODELS.build(merged.model)
    assert "\n" not in str(caught.value)


def test_a_neck_that_does_not_run_on_maps_alone_is_refused():
    @MODELS.register_module(force=True)
    class NeedsTheImage(nn.Module):
        def forward(self, image, maps):
            return maps

    config = config_of()
    config.neck = dict(type="NeedsTheImage")
    with pytest.raises(MixDetError, match=r"model.neck cannot be run on zeros.*missing 1 required"):
        MODELS.build(config)


@pytest.mark.parametrize("neck", ["FPN", "PAFPN"])
@pytest.mark.parametrize("strides", [None, "neck"])
def test_ssdlite_takes_necks_that_want_a_list(neck, strides):
    config = config_of("ssdlite_mixnet_s_digits")
    config.neck = dict(type=neck, out_channels=16, num_outs=3)
    config.backbone.taps = ("stage3", "stage5", "stage6")
    anchors = config.bbox_head.anchor_generator
    for key in ("min_sizes", "max_sizes", "ratios", "base_sizes"):
        if key in anchors:
            anchors[key] = anchors[key][:3]
    if strides:
        anchors.strides = strides
    model = built(config)
    assert tuple(model.bbox_head.in_channels) == (16, 16, 16)
    assert [x for x, _ in model.bbox_head.prior_generator.strides] == [8, 16, 32]
