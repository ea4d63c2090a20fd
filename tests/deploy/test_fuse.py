from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from mmdet.registry import MODELS
from mmengine.config import Config
from timm.layers import BatchNormAct2d
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mixdet.deploy.branches import BLOCK, Branches, channel_groups
from mixdet.deploy.fuse import fuse
from mixdet.errors import MixDetError
from mixdet.models.backbones import MixMobileNetV2, MixNet
from mixdet.models.backbones.base import Row, StagedBackbone
from mixdet.models.layers import InvertedResidual, MixConv2d
from mixdet.models.layers.mixconv import SplitConv2d
from mixdet.models.layers.pointwise import PointwiseConv2d
from tests.models.layers.test_mixconv import few, mixconvs
from tests.test_configs import CONFIGS

SIZE = 64  # every level has a cell
TOLERANCE = 1e-9
TARGETS = ("onnx", "openvino", "torch")  # the forms of the others have nothing that these have not
FUSED = [dict(target=target) for target in TARGETS] + [dict(target="onnx", int8=True)]


def calibrated(model: nn.Module) -> nn.Module:
    """Random affine parameters, and the statistics of one batch: activations stay near 1.

    In double precision, since an untrained network amplifies what float32 rounds off.
    """
    torch.manual_seed(0)
    model.double()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # an average over the batches
        with torch.no_grad():
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.3)
    with torch.no_grad():
        outputs(model.train(), torch.randn(3, 3, SIZE, SIZE).double())
        for norm in norms:
            norm.running_mean.add_(torch.randn_like(norm.running_mean) * 0.1)
    return model.eval()


def outputs(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    if hasattr(model, "bbox_head"):
        return [level for levels in model.bbox_head(model.extract_feat(x)) for level in levels]
    return list(model(x))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_keeps_its_outputs(path: Path):
    config = Config.fromfile(path)
    config.model.backbone.init_cfg = None
    model = calibrated(MODELS.build(config.model))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(2, 3, SIZE, SIZE).double()
    with torch.no_grad():
        want = outputs(model, x)
        for form in FUSED:
            fused = fuse(model, **form)
            left = [m for m in fused.modules() if isinstance(m, nn.BatchNorm2d | SplitConv2d)]
            assert all(isinstance(m, BatchNormAct2d) for m in left)  # timm's own are not folded
            for level, (a, b) in enumerate(zip(want, outputs(fused, x), strict=True)):
                assert a.abs().max() > 0.01, "nothing to compare"
                assert (a - b).abs().max() <= TOLERANCE * max(1, a.abs().max()), (form, level)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not model.training


def test_what_torch_computes_in_place_nobody_else_reads():
    """Neither the image nor a tapped block's output changes, and a second pass gives the same."""
    taps = tuple(f"stage{number}" for number in range(1, 6))
    model = calibrated(MixNet("s", taps=taps))
    fused, x = fuse(model, "torch"), torch.randn(1, 3, SIZE, SIZE).double()
    image, kept = x.clone(), []
    for stage in fused.blocks:
        for block in stage:
            block.register_forward_hook(lambda _, __, y: kept.append((y, y.clone())))
    with torch.no_grad():
        first, again = ([level.clone() for level in fused(x)] for _ in range(2))
        with profile(activities=[ProfilerActivity.CPU]) as ran:
            fused(x)
    assert torch.equal(x, image)
    assert all(torch.equal(y, then) for y, then in kept)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    names = [event.name for event in ran.events()]
    assert {"aten::mul_", "aten::add_"} <= {*names}
    assert not {"aten::mul", "aten::add"} & {*names}


def test_what_is_exported_computes_nothing_in_place():
    model = MixMobileNetV2((3, 5, 7), taps=("head",))
    for fused in (fuse(model), fuse(fuse(model, "torch"))):
        marked = [each for each in fused.modules() if hasattr(each, "overwrites")]
        assert len(marked) > 0
        assert not any(each.overwrites for each in marked)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(
    "taps",
    [
        ("stage4", "head"),
        ("stem", "stage5.expansion", "head"),
        ("stage1", "stage2", "stage3"),
        ("stage2.expansion", "stage4.expansion"),
        ("stage3.expansion",),
    ],
    ids=",".join,
)
def test_taps_and_paddings(padding, taps):
    for backbone in (
        MixNet("s", taps=taps, padding=padding),
        MixNet("m", taps=taps, padding=padding),
        MixMobileNetV2((3, 5, 7), taps=taps, padding=padding),
    ):
        calibrated(backbone)
        x = torch.randn(1, 3, 97, 130).double()
        with torch.no_grad():
            for form in FUSED:
                fused = fuse(backbone, **form)
                for a, b in zip(backbone(x), fused(x), strict=True):
                    assert (a - b).abs().max() <= TOLERANCE * a.abs().max()


def depthwise_taps(model: nn.Module) -> int:
    """Multiply-adds of all depthwise convolutions, a cell."""
    return sum(
        conv.weight.numel()
        for conv in model.modules()
        if isinstance(conv, nn.Conv2d) and conv.groups == conv.in_channels
    )


@pytest.mark.parametrize("target", TARGETS)
def test_kernels_cost_what_they_promise(target):
    """Branches stay near the split form's multiply-adds; padding alone would give 1.77 times."""
    model = MixMobileNetV2((3, 5, 7), taps=("head",))
    assert 1 < depthwise_taps(fuse(model, target)) / depthwise_taps(model) < 1.1


def multiply_adds(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, 320, 320))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("arch", ["s", "m", "l"])
def test_convolutions_side_by_side_cost_little_more_than_they_promise(arch):
    """Left are kernels that reach over a border, and for ONNX parts filled up to a block."""
    model = MixNet(arch, taps=("head",))
    asked = multiply_adds(model)
    assert asked < multiply_adds(fuse(model, "openvino")) < 1.05 * asked
    assert asked < multiply_adds(fuse(model, "onnx")) < 1.08 * asked
    assert multiply_adds(fuse(model, "torch")) < 1.25 * asked  # kernels padded to the largest


def narrowest(fused: nn.Module) -> int:
    """Channels of the narrowest part that a branch reads or writes."""
    blocks = [module for module in fused.modules() if isinstance(module, Branches)]
    convs = [conv for block in blocks for conv in (*block.conv_dw, *block.conv_pwl)]
    return min(min(conv.in_channels, conv.out_channels) for conv in convs)


def test_each_target_has_its_form():
    model = MixNet("m", taps=("head",))
    lanes = {"onnx": BLOCK, "openvino": 12, "litert": 12, "executorch": 12}
    assert {target: narrowest(fuse(model, target)) for target in lanes} == lanes
    for target in ("onnx", "openvino"):  # in 8 bits narrow ones are dense
        assert narrowest(fuse(model, target, int8=True)) == 32
    for target in ("ncnn", "torch"):  # blocks that have several 1x1 convolutions are no branches
        for int8 in (False, True):
            fused = fuse(model, target, int8=int8)
            pointwise = [module for module in fused.modules() if type(module) is PointwiseConv2d]
            assert any(conv.groups > 1 for conv in pointwise)
            assert narrowest(fused) > 24
            marked = [each.overwrites for each in fused.modules() if hasattr(each, "overwrites")]
            assert {*marked} == {target == "torch"}


ROWS = {
    "a shortcut around what is tapped": (
        24,
        [Row(2, (3, 5), 1, 6, 24, 0.5, (2, 2))],
        [Row(1, 3, 2, 6, 40, 0, (2, 2))],
    ),
    "lanes that differ": (
        36,
        [Row(2, (3, 5), 1, 6, 36, 0, (1, 3))],
        [Row(2, (7, 3), 1, 6, 36, 0.5, (2, 2)), Row(1, 3, 2, 3, 40, 0, (3, 2))],
    ),
    "less than a block in one piece": (
        8,
        [Row(1, (3, 5, 7), 2, 6, 12)],
        [Row(2, (3, 5), 1, 6, 12, 0.5)],
    ),
    "depthwise separable between lanes": (
        24,
        [Row(1, 3, 2, 6, 24, 0, (2, 2)), Row(1, (5, 3), 1, 1, 24)],
        [Row(1, (3, 5), 1, 6, 32, 0, (2, 2))],
    ),
    "depthwise separable with other borders": (
        24,
        [Row(1, 3, 2, 6, 24, 0, (2, 2)), Row(1, (7, 5, 3), 1, 1, 24)],
        [Row(1, (3, 5), 1, 6, 32, 0, (2, 2))],
    ),
}


def built(name: str, taps: Sequence[str]) -> StagedBackbone:
    stem, *stages = ROWS[name]
    stages.append([Row(1, 3, 1, 6, 24, 0, (2, 2))])
    return StagedBackbone(stem, stages, None, taps=taps, act_cfg=dict(type="SiLU"))


def assert_fused_alike(model: nn.Module) -> None:
    x = torch.randn(2, 3, 33, 47).double()
    with torch.no_grad():
        want = model(x)
        for form in FUSED:
            for a, b in zip(want, fuse(model, **form)(x), strict=True):
                assert (a - b).abs().max() <= TOLERANCE * a.abs().max(), form


@pytest.mark.parametrize("taps", [("stage1.expansion", "stage3"), ("stage3",)], ids=",".join)
@pytest.mark.parametrize("name", ROWS)
def test_other_networks(name, taps):
    assert_fused_alike(calibrated(built(name, taps)))


class Doubled(InvertedResidual):
    def project(self, expanded, x):
        return 2 * super().project(expanded, x)


class Halved(nn.Module):
    def forward(self, x):
        return x / 2


@pytest.mark.parametrize("odd", ["class", "squeeze-excite", "norm", "norm of the stem"])
def test_blocks_with_something_of_their_own_keep_it(odd):
    model = MixNet("m", taps=("stage4", "head"))
    for block in (model.blocks[1][0], model.blocks[2][2], model.blocks[4][1]):
        if odd == "class":
            block.__class__ = Doubled
        elif odd == "squeeze-excite":
            block.se = Halved()
        elif odd == "norm":
            block.bn2 = nn.GroupNorm(1, block.bn2.num_features)
    if odd == "norm of the stem":
        model.bn1 = nn.GroupNorm(1, model.bn1.num_features)
    assert_fused_alike(calibrated(model))


@few
@given(mixconvs())
def test_channel_groups_hold_every_kernel(case):
    mix, _ = case
    groups, merged = channel_groups(mix), mix.merged()
    assert sum(channels for channels, _ in groups) == merged.in_channels
    assert max(size for _, size in groups) == merged.kernel_size[0]
    start = 0
    for channels, size in groups:
        assert start % 16 == 0
        border = (merged.kernel_size[0] - size) // 2
        outside = merged.weight[start : start + channels].clone()
        outside[:, :, border : border + size, border : border + size] = 0
        assert not outside.any()
        start += channels


def test_equal_borders_are_rounded_down():
    assert channel_groups(MixConv2d(96, (3, 5, 7))) == [(32, 3), (32, 5), (32, 7)]
    assert channel_groups(MixConv2d(240, (3, 5))) == [(112, 3), (128, 5)]
    assert channel_groups(MixConv2d(32, (3, 5, 7))) == [(16, 5), (16, 7)]
    assert channel_groups(MixConv2d(12, (3, 5, 7))) == [(12, 7)]


def test_borders_between_pointwise_convolutions_are_kept():
    assert channel_groups(MixConv2d(240, (3, 5)), [120]) == [(120, 3), (120, 5)]
    assert channel_groups(MixConv2d(144, (3, 5, 7)), [72]) == [(48, 3), (24, 5), (24, 5), (48, 7)]
    # Of kernels, a border is never moved up
    assert channel_groups(MixConv2d(72, (3, 5)), [45]) == [(32, 3), (13, 5), (27, 5)]
    for lanes in ([16, 24], [24, 16]):
        assert channel_groups(MixConv2d(48, (3, 5)), lanes) == [(16, 3), (8, 3), (24, 5)]


def test_norms_that_cannot_be_folded():
    """Group norm sees all channels of a group: such blocks stay in one piece."""
    network = MixNet("s", taps=("head",), norm_cfg=dict(type="GN", num_groups=1)).eval()
    x = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        for target in TARGETS:
            (want,), (got,) = network(x), fuse(network, target)(x)
            assert torch.allclose(got, want, atol=1e-4)


def test_an_unknown_target():
    with pytest.raises(MixDetError, match="tpu"):
        fuse(nn.Sequential(), "tpu")


def joints(network: nn.Module) -> set[tuple[str, str]]:
    """What splits and joins channels in ONNX, and the part of a block that it comes from."""
    with torch.no_grad():
        program = torch.onnx.export(network, (torch.zeros(1, 3, 64, 64),), verbose=False)
    found = set()
    for node in program.model_proto.graph.node:
        if node.op_type in ("Split", "SplitToSequence", "Slice", "Concat"):
            scopes = {prop.key: prop.value for prop in node.metadata_props}
            scope = scopes.get("pkg.torch.onnx.name_scopes", "")  # torch's own passes leave none
            found.add((node.op_type, *re.findall(r"'blocks\.\d\.\d\.(\w+)", scope)[-1:]))
    return found


@pytest.mark.heavy
def test_the_merged_form_neither_splits_nor_joins_for_mixconv():
    """What is left comes from MixNet's 1x1 convolutions side by side, and MobileNetV2 has none."""
    mixnet = MixNet("s", taps=("stage5", "head")).eval()
    mobilenet = MixMobileNetV2((3, 5, 7), taps=("stage5", "head")).eval()
    for network in (mixnet, mobilenet):
        assert ("Concat", "conv_dw") in joints(network)
    for target in ("onnx", "openvino"):
        pointwise = {("Slice", "conv_pw"), ("Concat", "conv_pw"), ("Concat", "conv_pwl")}
        assert joints(fuse(mixnet, target)) == pointwise
        assert not joints(fuse(mobilenet, target))
