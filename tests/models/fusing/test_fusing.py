"""A fused network gives the same outputs, costs little more, and suits its target runtime."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine.config import Config
from timm.layers import BatchNormAct2d
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mixdet.errors import MixDetError
from mixdet.models import MixMobileNetV2, MixNet, split_channels
from mixdet.models.backbones.base import Row, StagedBackbone
from mixdet.models.fusing import FUSED_FORMS, FusedForm, fuse
from mixdet.models.fusing.forms import BLOCK
from mixdet.models.fusing.layout import ChannelLayout, split_by_kernel
from mixdet.models.layers import InvertedResidual
from mixdet.models.layers.mixconv import SplitConv2d
from tests.models.layers.test_mixconv import few_examples
from tests.test_configs import CONFIGS

SIZE = 64  # large enough for one cell on every level
TOLERANCE = 1e-9
# Other targets are fused like openvino, or like torch without computing in place
TARGETS = ("onnx", "openvino", "torch")
FUSED = [dict(target=target) for target in TARGETS] + [dict(target="onnx", int8=True)]


def calibrated(model: nn.Module) -> nn.Module:
    """Convert a model to float64, and draw the weights and statistics of its batch norms.

    Statistics near those of a batch keep the activations near 1. In float32, an untrained network
    would amplify rounding errors.
    """
    torch.manual_seed(0)
    model.double()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # so the running statistics become those of the batch
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
def test_fusing_keeps_the_outputs_of_every_config(path: Path):
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
            assert all(isinstance(m, BatchNormAct2d) for m in left)  # only timm's norms stay
            for level, (a, b) in enumerate(zip(want, outputs(fused, x), strict=True)):
                assert a.abs().max() > 0.01, "nothing to compare"
                assert (a - b).abs().max() <= TOLERANCE * max(1, a.abs().max()), (form, level)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not model.training


@pytest.mark.parametrize("target", FUSED_FORMS)
def test_a_network_fused_for_any_target_gives_the_same_outputs(target):
    assert isinstance(FUSED_FORMS[target], FusedForm)
    network, x = calibrated(MixNet(taps=["stage3"])), torch.randn(1, 3, SIZE, SIZE).double()
    with torch.no_grad():
        torch.testing.assert_close(fuse(network, target)(x), network(x))


def test_computing_in_place_overwrites_no_tensor_that_is_read_later():
    """The image and the blocks' outputs do not change, and a second pass gives equal outputs."""
    taps = tuple(f"stage{number}" for number in range(1, 6))
    model = calibrated(MixNet("s", taps=taps))
    fused, x = fuse(model, "torch"), torch.randn(1, 3, SIZE, SIZE).double()
    image, kept = x.clone(), []
    for stage in fused.blocks:
        for block in stage:
            block.register_forward_hook(lambda _, __, y: kept.append((y, y.clone())))
    with torch.no_grad():
        first, again = ([level.clone() for level in fused(x)] for _ in range(2))
    assert torch.equal(x, image)
    assert all(torch.equal(y, then) for y, then in kept)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    names = operations(fused, x)
    assert {"aten::mul_", "aten::add_"} <= names
    assert not {"aten::mul", "aten::add"} & names


def operations(model: nn.Module, x: torch.Tensor) -> set[str]:
    """The names of torch's operators that a model calls."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as ran:
        model(x)
    return {event.name for event in ran.events()}


def test_a_network_to_be_exported_computes_nothing_in_place():
    model, x = MixNet("s", taps=("head",)).eval(), torch.zeros(1, 3, SIZE, SIZE)
    assert {"aten::mul_", "aten::add_"} <= operations(fuse(model, "torch"), x)
    for fused in (fuse(model), fuse(fuse(model, "torch"))):
        assert not {"aten::mul_", "aten::add_"} & operations(fused, x)


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
def test_a_fused_backbone_gives_the_same_outputs_at_all_taps(padding, taps):
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


def depthwise_weights(model: nn.Module) -> int:
    """Number of weights of all depthwise convolutions: their multiply-adds per output cell."""
    return sum(
        conv.weight.numel()
        for conv in model.modules()
        if isinstance(conv, nn.Conv2d) and conv.groups == conv.in_channels
    )


@pytest.mark.parametrize("target", TARGETS)
def test_fused_depthwise_convolutions_cost_less_than_1_1_times_the_mixconvs(target):
    """If all kernels were padded to the largest size, the factor would be 1.77."""
    model = MixMobileNetV2((3, 5, 7), taps=("head",))
    assert 1 < depthwise_weights(fuse(model, target)) / depthwise_weights(model) < 1.1


def multiply_adds(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, 320, 320))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("arch", ["s", "m", "l"])
def test_a_fused_mixnet_needs_few_more_multiply_adds(arch):
    """Fusing pads some kernels. For ONNX it also fills up narrow tensors with zero channels."""
    model = MixNet(arch, taps=("head",))
    trained = multiply_adds(model)
    assert trained < multiply_adds(fuse(model, "openvino")) < 1.05 * trained
    assert trained < multiply_adds(fuse(model, "onnx")) < 1.08 * trained
    assert multiply_adds(fuse(model, "torch")) < 1.25 * trained  # pads all kernels to one size


def convolution_shapes(model: nn.Module) -> list[tuple[int, int, int]]:
    """Return (channels in, channels out, groups) of the convolutions with several output cells."""
    shapes = []

    def note(conv: nn.Conv2d, _, y: torch.Tensor) -> None:
        if y[0, 0].numel() > 1:
            shapes.append((conv.in_channels, conv.out_channels, conv.groups))

    handles = [
        conv.register_forward_hook(note) for conv in model.modules() if isinstance(conv, nn.Conv2d)
    ]
    with torch.no_grad():
        model(torch.zeros(1, 3, SIZE, SIZE))
    for handle in handles:
        handle.remove()
    return shapes


def narrowest(model: nn.Module) -> int:
    """The fewest channels that a convolution after the stem reads or writes."""
    return min(min(shape[:2]) for shape in convolution_shapes(model)[1:] if shape[0] != 3)


def test_the_form_of_the_1x1_convolutions_suits_the_target():
    """ncnn and torch get convolutions with groups. The other targets get dense convolutions.

    Dense convolutions of few channels are slow in ONNX Runtime, and in 8 bits on every runtime. In
    these cases fusing adds channels, so the narrowest convolution has more channels.
    """
    model = MixNet("m", taps=("stage5",))
    dense = ("onnx", "openvino", "litert", "executorch")
    for target in dense:
        shapes = convolution_shapes(fuse(model, target))
        assert all(groups in (1, channels) for channels, _, groups in shapes)
    widths = {target: narrowest(fuse(model, target)) for target in dense}
    assert widths["openvino"] == widths["litert"] == widths["executorch"] < widths["onnx"]
    for target in ("onnx", "openvino"):
        assert narrowest(fuse(model, target, int8=True)) > widths[target]
    for target in ("ncnn", "torch"):
        for int8 in (False, True):
            shapes = convolution_shapes(fuse(model, target, int8=int8))
            assert any(1 < groups < channels for channels, _, groups in shapes)


ROWS = {
    "a shortcut around a tap": (
        24,
        [Row(2, (3, 5), 1, 6, 24, 0.5, (2, 2))],
        [Row(1, 3, 2, 6, 40, 0, (2, 2))],
    ),
    "groups that differ": (
        36,
        [Row(2, (3, 5), 1, 6, 36, 0, (1, 3))],
        [Row(2, (7, 3), 1, 6, 36, 0.5, (2, 2)), Row(1, 3, 2, 3, 40, 0, (3, 2))],
    ),
    "few channels in one branch": (
        8,
        [Row(1, (3, 5, 7), 2, 6, 12)],
        [Row(2, (3, 5), 1, 6, 12, 0.5)],
    ),
    "depthwise separable between groups": (
        24,
        [Row(1, 3, 2, 6, 24, 0, (2, 2)), Row(1, (5, 3), 1, 1, 24)],
        [Row(1, (3, 5), 1, 6, 32, 0, (2, 2))],
    ),
    "depthwise separable with other boundaries": (
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
def test_fusing_keeps_the_outputs_of_other_architectures(name, taps):
    assert_fused_alike(calibrated(built(name, taps)))


class Doubled(InvertedResidual):
    def forward(self, x, expansions=None):
        return 2 * super().forward(x, expansions)


class Halved(nn.Module):
    def forward(self, x):
        return x / 2


@pytest.mark.parametrize("odd", ["class", "squeeze-excite", "norm", "norm of the stem"])
def test_modules_that_replace_a_part_of_a_block_are_kept(odd):
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


def depthwise_branches(channels: int, kernel_sizes, groups=(1, 1)) -> list[tuple[int, int]]:
    """The (channels, kernel size) of the depthwise convolutions that a fused block has."""
    rows = [Row(1, kernel_sizes, 2, 2, 32, 0, groups)]
    model = StagedBackbone(channels // 2, [rows], None, taps=["stage1"], act_cfg=dict(type="ReLU"))
    convs = [conv for conv in fuse(model, "openvino").modules() if isinstance(conv, nn.Conv2d)]
    return [(conv.groups, conv.kernel_size[0]) for conv in convs if conv.groups > 1]


@pytest.mark.parametrize("channels", [12, 32, 96, 240])
@pytest.mark.parametrize("kernel_sizes", [(3, 5), (3, 5, 7)], ids=str)
def test_branches_begin_at_multiples_of_block_and_no_kernel_gets_smaller(channels, kernel_sizes):
    """A branch is a depthwise convolution for some of the channels.

    Runtimes compute channels in blocks. A branch that begins inside a block is slower.
    """
    branches = depthwise_branches(channels, kernel_sizes)
    *starts, total = accumulate(count for count, _ in branches)
    assert total == channels
    assert all(start % BLOCK == 0 for start in starts)
    trained = np.repeat(kernel_sizes, split_channels(channels, len(kernel_sizes)))
    fused = np.repeat([size for _, size in branches], [count for count, _ in branches])
    assert (fused >= trained).all()
    assert ((fused > trained).sum()) < BLOCK * len(kernel_sizes)


@pytest.mark.parametrize("groups", [(2, 1), (1, 2)], ids=str)
@pytest.mark.parametrize("channels", [144, 240])
def test_branches_end_at_the_boundaries_of_grouped_1x1_convolutions(channels, groups):
    counts = [count for count, _ in depthwise_branches(channels, (3, 5, 7), groups)]
    assert channels // 2 in accumulate(counts)


def naive_split(kernel_sizes: list[int], boundaries: list[int]) -> list[int]:
    """Decide for each channel whether `split_by_kernel` ends a branch there; return the ends."""
    ends = []
    for channel in range(1, len(kernel_sizes)):
        for border in range(channel, len(kernel_sizes)):
            if kernel_sizes[border] == kernel_sizes[border - 1]:
                continue
            down = border
            while down % BLOCK and down not in boundaries:
                down -= 1
            if down == channel:
                ends.append(channel)
                break
        else:
            ends += [channel] if channel in boundaries else []
    return ends


@few_examples
@given(
    st.lists(st.sampled_from([3, 5, 7]), min_size=1, max_size=70).map(sorted),
    st.sets(st.integers(1, 69), max_size=3),
)
def test_split_by_kernel_equals_a_naive_implementation(kernel_sizes, boundaries):
    boundaries = sorted(b for b in boundaries if b < len(kernel_sizes))
    layout = split_by_kernel(kernel_sizes, boundaries)
    assert layout.boundaries == naive_split(kernel_sizes, boundaries)
    assert sum(layout.sizes) == len(kernel_sizes)


@few_examples
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 24), st.data())
def test_a_layout_pads_with_zeros_and_locates_every_channel(sizes, min_channels, data):
    layout, total = ChannelLayout(sizes, min_channels), sum(sizes)
    numbers = torch.arange(1.0, total + 1)
    padded = layout.pad(numbers[None, :, None], 1)[0, :, 0]
    assert torch.equal(padded[padded > 0], numbers)
    assert len(padded) == sum(max(n, min_channels) for n in sizes) or len(sizes) == 1
    ends = sorted(data.draw(st.sets(st.integers(1, total)))) + [total]
    groups = ChannelLayout(torch.tensor([0, *ends]).unique().diff().tolist())
    parts = [padded[first:end] for first, end in layout.locate(groups)]
    assert torch.equal(torch.cat(parts), padded)
    for part, want in zip(parts, numbers.split(groups.sizes), strict=True):
        assert torch.equal(part[part > 0], want)


def test_fusing_keeps_the_outputs_of_networks_with_group_norm():
    """Group norm computes its statistics from each image, so it cannot be folded."""
    network = MixNet("s", taps=("head",), norm_cfg=dict(type="GN", num_groups=1)).eval()
    x = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        for target in TARGETS:
            (want,), (got,) = network(x), fuse(network, target)(x)
            assert torch.allclose(got, want, atol=1e-4)


def test_an_unknown_target_is_named():
    with pytest.raises(MixDetError, match="tpu"):
        fuse(nn.Sequential(), "tpu")


def joints(network: nn.Module) -> set[tuple[str, str]]:
    """Return the ONNX nodes that split or join channels, each with the module that contains it."""
    with torch.no_grad():
        program = torch.onnx.export(network, (torch.zeros(1, 3, 64, 64),), verbose=False)
    nodes = set()
    for node in program.model_proto.graph.node:
        if node.op_type in ("Split", "SplitToSequence", "Slice", "Concat"):
            scopes = {prop.key: prop.value for prop in node.metadata_props}
            # nodes that torch adds have no scope
            scope = scopes.get("pkg.torch.onnx.name_scopes", "")
            nodes.add((node.op_type, *re.findall(r"'blocks\.\d\.\d\.(\w+)", scope)[-1:]))
    return nodes


@pytest.mark.heavy
def test_fused_depthwise_convolutions_neither_split_nor_join_channels():
    """Only grouped 1x1 convolutions split and join channels. MixNet has some, MobileNetV2 none."""
    mixnet = MixNet("s", taps=("stage5", "head")).eval()
    mobilenet = MixMobileNetV2((3, 5, 7), taps=("stage5", "head")).eval()
    for network in (mixnet, mobilenet):
        assert ("Concat", "conv_dw") in joints(network)
    for target in ("onnx", "openvino"):
        pointwise = {("Slice", "conv_pw"), ("Concat", "conv_pw"), ("Concat", "conv_pwl")}
        assert joints(fuse(mixnet, target)) == pointwise
        assert not joints(fuse(mobilenet, target))
