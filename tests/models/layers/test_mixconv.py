"""Comparison of `MixConv2d` with its definition, timm's module and one merged convolution."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mmengine.model import initialize
from timm.layers import MixedConv2d
from timm.layers import pad_same as timm_pad_same
from torch import Tensor, nn

from mixdet.models import MixConv2d, split_channels
from mixdet.models.layers import Conv2dSame, DepthwiseConv2d, pad_same

few_examples = settings(deadline=None, max_examples=60)
odd = st.sampled_from([3, 5, 7, 9, 11])
paddings = st.sampled_from(["symmetric", "same"])
splits = st.sampled_from(["equal", "exponential"])


@st.composite
def mixconvs(draw, dtype=torch.float64) -> tuple[nn.Module, dict]:
    """Draw a MixConv2d with random weights; return it and its arguments."""
    dilated = draw(st.booleans())
    kwargs = dict(
        channels=draw(st.integers(1, 40)),
        kernel_sizes=draw(st.lists(odd, min_size=1, max_size=5)),
        stride=1 if dilated else draw(st.integers(1, 2)),
        dilation=draw(st.integers(1, 3)),
        split=draw(splits),
        padding=draw(paddings),
        dilated=dilated,
    )
    groups = len(kwargs["kernel_sizes"])
    least = 2 ** (groups - 1) if kwargs["split"] == "exponential" else groups
    assume(kwargs["channels"] >= least)
    torch.manual_seed(draw(st.integers(0, 9)))
    return MixConv2d(**kwargs).to(dtype), kwargs


@st.composite
def images(draw, channels: int, dtype=torch.float64) -> Tensor:
    return torch.randn(2, channels, draw(st.integers(1, 17)), draw(st.integers(1, 17)), dtype=dtype)


def naive(conv: nn.Module, x: Tensor, kwargs: dict) -> Tensor:
    """Compute MixConv by its definition: convolve each channel with its own kernel and padding."""
    groups, stride = len(kwargs["kernel_sizes"]), kwargs["stride"]
    channels = kwargs["channels"]
    if kwargs["split"] == "exponential":
        counts = [channels // 2**i for i in range(1, groups)]
        counts.append(channels - sum(counts))
    else:
        counts = [channels // groups] * groups
        counts[0] += channels % groups
    sizes = [k for k, n in zip(kwargs["kernel_sizes"], counts, strict=True) for _ in range(n)]
    weights = [kernel for weight in conv.parameters() for kernel in weight]
    outputs = []
    for channel, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        dilation = kwargs["dilation"]
        if kwargs["dilated"]:  # a 3x3 kernel, spread over size x size pixels
            window = weight.new_zeros(1, size, size)
            window[:, :: (size - 1) // 2, :: (size - 1) // 2] = weight
            weight = window
        reach = (size - 1) * dilation + 1
        pads = []
        for length in (x.shape[3], x.shape[2]):
            cells = -(-length // stride)
            total = max((cells - 1) * stride + reach - length, 0)
            tensorflow = kwargs["padding"] == "same"
            pads += [total // 2, total - total // 2] if tensorflow else [(reach - 1) // 2] * 2
        padded = F.pad(x[:, channel : channel + 1], pads)
        outputs.append(F.conv2d(padded, weight[None], stride=stride, dilation=dilation))
    return torch.cat(outputs, 1)


@given(st.integers(1, 500), st.integers(1, 6), splits)
@few_examples
def test_a_split_follows_the_definition_and_sums_to_the_channels(channels, groups, split):
    assume(channels >= (2 ** (groups - 1) if split == "exponential" else groups))
    sizes = split_channels(channels, groups, split)
    assert sum(sizes) == channels
    assert len(sizes) == groups
    if split == "equal":
        assert sizes[1:] == [channels // groups] * (groups - 1)
        assert sizes[0] == channels // groups + channels % groups
    else:
        assert sizes[:-1] == [channels // 2**i for i in range(1, groups)]


def test_splits_of_64_and_32_channels():
    assert split_channels(64, 4, "equal") == [16, 16, 16, 16]
    assert split_channels(64, 4, "exponential") == [32, 16, 8, 8]
    assert split_channels(32, 3) == [12, 10, 10]


@given(st.data())
@few_examples
def test_mixconv_equals_its_definition_channel_by_channel(data):
    conv, kwargs = data.draw(mixconvs())
    x = data.draw(images(kwargs["channels"]))
    y = conv(x)
    torch.testing.assert_close(y, naive(conv, x, kwargs), atol=1e-12, rtol=0)
    height, width = (-(-size // kwargs["stride"]) for size in x.shape[2:])
    assert y.shape == (2, kwargs["channels"], height, width)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("kernel_sizes", [(3, 5), (3, 5, 7), (3, 5, 7, 9, 11)])
@pytest.mark.parametrize("size", [(14, 21), (15, 8)])
def test_mixconv_equals_timm_with_the_same_weights(kernel_sizes, stride, dilation, padding, size):
    theirs = MixedConv2d(
        26,
        26,
        list(kernel_sizes),
        stride=stride,
        dilation=dilation,
        padding="same" if padding == "same" else "",
        depthwise=True,
        bias=False,
    )
    ours = MixConv2d(26, kernel_sizes, stride, dilation, padding=padding)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 26, *size)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


@pytest.mark.parametrize("kernel_sizes", [3, (3, 5, 7)])
@pytest.mark.parametrize(
    "kwargs",
    [
        dict(stride=2),
        dict(stride=2, padding="same"),
        dict(dilation=2),
        dict(dilated=True, split="exponential"),
    ],
    ids=str,
)
def test_gradients_pass_gradcheck(kernel_sizes, kwargs):
    conv = MixConv2d(5, kernel_sizes, **kwargs).double()
    x = torch.randn(1, 5, 6, 5, dtype=torch.float64, requires_grad=True)
    names, weights = zip(*conv.named_parameters(), strict=True)

    def function(x, *weights):
        return torch.func.functional_call(conv, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x, *weights))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["64", "32"]
)
@given(data=st.data())
@few_examples
def test_merged_is_one_convolution_that_computes_the_same(dtype, tolerance, data):
    conv, kwargs = data.draw(mixconvs(dtype))
    x = data.draw(images(kwargs["channels"], dtype))
    merged = conv.merged()
    torch.testing.assert_close(merged(x), conv(x), atol=tolerance, rtol=0)
    pads_by_size = kwargs["padding"] == "same" and kwargs["stride"] > 1
    assert type(merged) is (Conv2dSame if pads_by_size else nn.Conv2d)
    assert merged.groups == kwargs["channels"]
    assert merged.weight.dtype == dtype
    assert merged.weight.data_ptr() != next(conv.parameters()).data_ptr()


@given(st.data())
@few_examples
def test_merged_computes_the_same_at_large_strides_with_1x1_kernels(data):
    sizes = data.draw(st.lists(st.sampled_from([1, 3, 5]), min_size=1, max_size=3))
    stride = data.draw(st.integers(1, 5))
    padding = data.draw(paddings)
    conv = MixConv2d(6, sizes, stride, padding=padding).double()
    narrow = min(sizes) < stride and len(set(sizes)) > 1
    if padding == "same" and narrow:
        with pytest.raises(ValueError, match="padding='symmetric' or larger kernels"):
            conv.merged()
        return
    x = data.draw(images(6))
    torch.testing.assert_close(conv.merged()(x), conv(x), atol=1e-10, rtol=0)


def test_merging_dilated_kernels_keeps_a_common_dilation():
    assert MixConv2d(8, 7, dilated=True).merged().kernel_size == (3, 3)
    assert MixConv2d(8, (5, 9), dilated=True).merged().dilation == (2, 2)
    assert MixConv2d(8, (3, 5), dilation=2).merged().kernel_size == (5, 5)


@pytest.mark.parametrize("kernel_sizes", [5, (5,), [5]])
def test_one_kernel_is_a_plain_depthwise_convolution(kernel_sizes):
    conv = MixConv2d(12, kernel_sizes, stride=2)
    assert isinstance(conv, DepthwiseConv2d)
    assert isinstance(conv, nn.Conv2d)
    assert list(conv.state_dict()) == ["weight"]
    x = torch.randn(1, 12, 9, 9)
    expected = F.conv2d(x, conv.weight, stride=2, padding=2, groups=12)
    torch.testing.assert_close(conv(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(7, 8), (9, 12)])
@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), [(3, 1, 1), (5, 2, 1), (3, 2, 2)])
def test_pad_same_pads_as_timm_does(size, kernel_size, stride, dilation):
    x = torch.randn(1, 2, *size)
    sides = ([value, value] for value in (kernel_size, stride, dilation))
    torch.testing.assert_close(
        pad_same(x, kernel_size, stride, dilation), timm_pad_same(x, *sides), rtol=0, atol=0
    )


@pytest.mark.parametrize("kernel_sizes", [3, (3, 5)])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_mixconv_can_be_copied_and_pickled(kernel_sizes, padding):
    conv = MixConv2d(8, kernel_sizes, 2, padding=padding)
    x = torch.randn(1, 8, 6, 6)
    for copied in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert type(copied) is type(conv)
        assert torch.equal(copied(x), conv(x))


@pytest.mark.parametrize("kernel_sizes", [3, (3, 5)])
def test_mmengine_initializes_mixconv_as_a_convolution(kernel_sizes):
    conv = MixConv2d(8, kernel_sizes)
    initialize(conv, dict(type="Constant", layer="Conv2d", val=7.0))
    assert all((weight == 7).all() for weight in conv.parameters())


@pytest.mark.parametrize("kernel_sizes", [3, (3, 5)])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_the_output_keeps_channels_last(kernel_sizes, padding):
    conv = MixConv2d(8, kernel_sizes, 2, padding=padding).to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 10, 10).to(memory_format=torch.channels_last)
    assert conv(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(kernel_sizes=4), "kernel size 4 is not an odd"),
        (dict(kernel_sizes=(3, 0)), "kernel size 0"),
        (dict(kernel_sizes=(3, -1)), "kernel size -1"),
        (dict(kernel_sizes=(3, 5.0)), "kernel size 5.0 is not an odd"),
        (dict(kernel_sizes=("3",)), "kernel size '3'"),
        (dict(kernel_sizes="35"), "kernel_sizes='35'"),
        (dict(kernel_sizes=None), "kernel_sizes=None"),
        (dict(kernel_sizes=True), "kernel size True"),
        (dict(kernel_sizes=()), "0 groups: give at least one"),
        (dict(channels=2), "2 channels cannot be split into 3 groups"),
        (dict(channels=0, kernel_sizes=3), "0 channels"),
        (dict(channels=3, split="exponential"), "empty .*use fewer kernel sizes"),
        (dict(split="linear"), r"split='linear' is unknown: use one of \('equal'"),
        (dict(kernel_sizes=3, split="linear"), "split='linear' is unknown"),
        (dict(padding="valid"), r"padding='valid' is unknown: use one of \('symmetric'"),
        (dict(stride=0), "stride=0"),
        (dict(stride=1.5), "stride=1.5"),
        (dict(dilation=0), "dilation=0"),
        (dict(dilated=True, stride=2), "dilated=True works at stride 1 only, not 2"),
    ],
    ids=str,
)
def test_wrong_arguments_of_mixconv_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MixConv2d(**dict(channels=12, kernel_sizes=(3, 5, 7)) | kwargs)


def test_the_arguments_have_the_documented_order():
    assert list(inspect.signature(MixConv2d).parameters) == [
        *("channels", "kernel_sizes", "stride", "dilation", "split", "padding", "dilated")
    ]
