"""Comparison of our MobileNets with those of torchvision, timm and mmdet."""

from __future__ import annotations

import re

import pytest
import timm
import torch
import torchvision
from mmdet.models.backbones import MobileNetV2
from torch import nn

from mixdet.errors import MixDetError
from mixdet.models import MixMobileNetV1, MixMobileNetV2
from tests.synthetic import randomize_norms


def load_by_order(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy weights by their order, since the names differ. Leave out the classifier at the end."""
    values = list(theirs.state_dict().values())[: len(ours.state_dict())]
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))


def assert_close(output: torch.Tensor, expected: torch.Tensor) -> None:
    assert output.shape == expected.shape
    assert (output - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("size", [(224, 224), (161, 203)])
@torch.no_grad()
def test_v2_with_3x3_kernels_equals_torchvision(size):
    theirs = randomize_norms(torchvision.models.mobilenet_v2())
    ours = MixMobileNetV2(3, taps=("stage5", "stage6.expansion", "head")).eval()
    load_by_order(ours, theirs)
    x = torch.randn(1, 3, *size)
    stage5, expansion, head = ours(x)
    features = theirs.features
    assert_close(stage5, features[:14](x))
    assert_close(expansion, features[14].conv[0](features[:14](x)))
    assert_close(head, features(x))
    assert ours.out_channels == (96, 576, 1280)
    assert ours.out_strides == (16, 16, 32)


@torch.no_grad()
def test_taps_give_the_outputs_of_mmdets_mobilenet_v2():
    theirs = randomize_norms(MobileNetV2(out_indices=(4, 7)))
    ours = MixMobileNetV2(3, taps=("stage5", "head")).eval()
    load_by_order(ours, theirs)
    x = torch.randn(2, 3, 96, 128)
    for output, expected in zip(ours(x), theirs(x), strict=True):
        assert_close(output, expected)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(
    ("make", "name", "last"),
    [
        (MixMobileNetV1, "mobilenetv1_100", "stage5"),
        (MixMobileNetV2, "mobilenetv2_100", "head"),
    ],
)
@pytest.mark.parametrize("size", [(224, 224), (161, 203)])
@torch.no_grad()
def test_outputs_equal_timm(make, name, last, size):
    theirs = randomize_norms(timm.create_model(name))
    stages = [f"stage{i}" for i in range(1, len(theirs.blocks) + 1)]
    ours = make(3, taps=[*stages, last]).eval()
    ours.load_state_dict(theirs.state_dict())
    back = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert back.missing_keys == ["classifier.weight", "classifier.bias"]
    assert back.unexpected_keys == []
    x = torch.randn(1, 3, *size)
    features, expected = theirs.forward_intermediates(x, extra_blocks=True)
    for output, feature in zip(ours(x), [*expected[1:], features], strict=True):
        assert_close(output, feature)


@pytest.mark.parametrize(
    ("make", "widen_factor"),
    [
        (MixMobileNetV1, 1.0),
        (MixMobileNetV1, 1.25),
        (MixMobileNetV2, 0.5),
        (MixMobileNetV2, 1.0),
        (MixMobileNetV2, 1.4),
    ],
)
def test_the_weights_of_the_timm_model_called_timm_name_fit(make, widen_factor):
    taps = ("stage5",) if make is MixMobileNetV1 else ("head",)
    ours = make([3], widen_factor, taps)
    theirs = timm.create_model(ours.timm_name)
    assert str(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"


@pytest.mark.parametrize(
    ("make", "kernel_sizes", "more"),
    [
        (MixMobileNetV1, 5, 79_360),
        (MixMobileNetV1, (3, 5), 39_680),
        (MixMobileNetV1, 7, 198_400),
        (MixMobileNetV1, (3, 5, 7), 92_176),
        (MixMobileNetV2, 5, 114_176),
        (MixMobileNetV2, (3, 5), 57_088),
        (MixMobileNetV2, 7, 285_440),
        (MixMobileNetV2, (3, 5, 7), 133_168),
    ],
)
def test_larger_kernels_add_only_depthwise_parameters(make, kernel_sizes, more):
    def parameters(kernel_sizes) -> int:
        taps = ("stage5",) if make is MixMobileNetV1 else ("head",)
        return sum(weight.numel() for weight in make(kernel_sizes, taps=taps).parameters())

    assert parameters(kernel_sizes) - parameters(3) == more


def test_timm_has_no_weights_for_other_kernels_widths_and_paddings():
    assert MixMobileNetV2().timm_name is None
    assert MixMobileNetV2(5).timm_name is None
    assert MixMobileNetV2(3, 0.75).timm_name is None
    assert MixMobileNetV2(3, padding="same").timm_name is None
    assert MixMobileNetV1().timm_name == "mobilenetv1_100.ra4_e3600_r224_in1k"


@pytest.mark.parametrize(
    ("make", "taps", "block", "place", "channels"),
    [
        # In table 2 of MobileNetV2's paper, the 10th and the 11th block read 64 channels and expand
        # them by 6, to 384. The 7th depthwise layer of MobileNetV1 has 512 channels.
        (MixMobileNetV2, ("head",), 10, "blocks.3.3", 384),
        (MixMobileNetV2, ("head",), 11, "blocks.4.0", 384),
        (MixMobileNetV2, ("head",), 1, "blocks.0.0", 32),
        (MixMobileNetV1, ("stage5",), 7, "blocks.3.1", 512),
    ],
)
@pytest.mark.parametrize("key", [int, str], ids=["config", "command line"])
def test_block_kernel_sizes_change_only_their_block(make, taps, block, place, channels, key):
    plain = make(3, taps=taps)
    changed = make(3, taps=taps, block_kernel_sizes={key(block): 7})
    shapes = {name: weight.shape for name, weight in plain.state_dict().items()}
    name = f"{place}.conv_dw.weight"
    assert shapes[name] == (channels, 1, 3, 3)
    expected = shapes | {name: (channels, 1, 7, 7)}
    assert {name: weight.shape for name, weight in changed.state_dict().items()} == expected
    mixed = make(3, taps=taps, block_kernel_sizes={key(block): (3, 5, 7)})
    sizes = [conv.kernel_size[0] for conv in mixed.get_submodule(f"{place}.conv_dw").children()]
    assert sizes == [3, 5, 7]
    assert plain.timm_name
    assert changed.timm_name is None


@pytest.mark.parametrize(
    ("blocks", "taps", "words"),
    [
        ({18: 5}, ("head",), "no block 18; MixMobileNetV2 with taps=('head',) has blocks 1 to 17"),
        ({0: 5}, ("head",), "no block 0;"),
        ({"x": 5}, ("head",), "no block x;"),
        ({14: 5}, ("stage5",), "has blocks 1 to 13"),
        # stage6.expansion comes before the depthwise convolution of block 14
        ({14: 5}, ("stage6.expansion",), "has blocks 1 to 13"),
        ({2: 4}, ("head",), "block_kernel_sizes={'2': 4}: kernel size 4"),
    ],
)
def test_blocks_and_kernels_that_do_not_exist_are_refused(blocks, taps, words):
    with pytest.raises(MixDetError, match=re.escape(words)):
        MixMobileNetV2(3, taps=taps, block_kernel_sizes=blocks)
