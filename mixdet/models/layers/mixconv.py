"""MixConv: a depthwise convolution whose channel groups have kernels of different sizes.

Tan and Le, "MixConv: Mixed Depthwise Convolutional Kernels", BMVC 2019, arXiv 1907.09595.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixdet.models.fusing.forms import FusedForm
from mixdet.models.layers.depthwise import depthwise_conv

PADDINGS = ("symmetric", "same")
SPLITS = ("equal", "exponential")


def split_channels(channels: int, groups: int, split: str = "equal") -> list[int]:
    """Split channels into groups (section 3.2 of the paper).

    Args:
        channels: Number of channels.
        groups: Number of groups.
        split: 'equal' gives every group the same number of channels, and adds the remainder to the
            first group (64 in 4 groups are 16, 16, 16, 16). 'exponential' gives group i, counted
            from 1, floor(channels / 2^i) channels. The last group gets the rest (64 in 4 groups are
            32, 16, 8, 8).

    Returns:
        The number of channels of each group. Their sum is `channels`.

    Raises:
        ValueError: If the split is unknown, or a group would be empty.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown: use one of {SPLITS}")
    if not 1 <= groups <= channels:
        raise ValueError(
            f"{channels} channels cannot be split into {groups} groups: "
            "give at least one kernel size, and no more kernel sizes than channels"
        )
    if split == "equal":
        size = channels // groups
        return [channels - size * (groups - 1)] + [size] * (groups - 1)
    sizes = [channels >> i for i in range(1, groups)]
    sizes.append(channels - sum(sizes))
    if 0 in sizes:
        raise ValueError(
            f"split='exponential' of {channels} channels in {groups} groups leaves a group empty "
            f"({sizes}): use fewer kernel sizes, or split='equal'"
        )
    return sizes


@torch.fx.wrap  # symbolic tracing records this call, since the padding depends on the input's size
def pad_same(x: Tensor, kernel_size: int, stride: int, dilation: int = 1) -> Tensor:
    """Pad with zeros as TensorFlow's SAME does.

    If the number of pixels to add is odd, the right or the bottom gets one more.

    Args:
        x: (N, C, H, W).
        kernel_size: Side of the convolution's kernel.
        stride: Stride of the convolution.
        dilation: Dilation of the convolution.

    Returns:
        The padded tensor. A convolution of it without padding has an output of
        (ceil(H/stride), ceil(W/stride)) cells.
    """
    pads = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max(dilation * (kernel_size - 1) - (size - 1) % stride, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads) if any(pads) else x


class Conv2dSame(nn.Conv2d):
    """`nn.Conv2d` with TensorFlow's SAME padding, which depends on the size of the input."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, ceil(H/stride), ceil(W/stride))."""
        return super().forward(pad_same(x, self.kernel_size[0], self.stride[0], self.dilation[0]))


class SplitConv2d(nn.Module):
    """Convolutions side by side, each on its own group of channels.

    The children are called '0', '1', ..., as in timm, so that weights load by name.

    Args:
        convs: The convolutions, in the order of the channels.
    """

    def __init__(self, convs: Iterable[nn.Conv2d]) -> None:
        super().__init__()
        for index, conv in enumerate(convs):
            self.add_module(str(index), conv)

    def forward(self, x: Tensor) -> Tensor:
        """(N, sum of in_channels, H, W) -> (N, sum of out_channels, H', W')."""
        convs = list(self.children())
        groups = torch.split(x, [conv.in_channels for conv in convs], 1)
        # The groups are indexed, since torch.fx cannot iterate over the result of a split
        return torch.cat([conv(groups[index]) for index, conv in enumerate(convs)], 1)


def MixConv2d(
    channels: int,
    kernel_sizes: int | Sequence[int] = (3, 5, 7),
    stride: int = 1,
    dilation: int = 1,
    split: str = "equal",
    padding: str = "symmetric",
    dilated: bool = False,
) -> DepthwiseConv2d | MixedDepthwiseConv2d:
    """Make a depthwise convolution with one kernel size for each group of channels, without bias.

    Args:
        channels: Channels in and out.
        kernel_sizes: One odd number, or one for each group, in the order of the groups.
        stride: Stride of all groups.
        dilation: Dilation of all groups.
        split: 'equal' or 'exponential', see `split_channels`.
        padding: 'symmetric', or 'same' for TensorFlow's SAME padding. The two differ at strides
            above 1.
        dilated: Replace each K x K kernel by a 3 x 3 kernel with dilation (K - 1) / 2, which covers
            the same window (section 3.2 of the paper). The stride must be 1.

    Returns:
        A module (N, C, H, W) -> (N, C, ceil(H/stride), ceil(W/stride)) that has `merged()`. With
        one kernel size it is a `DepthwiseConv2d`, whose parameter is called `weight`. With several
        it is a `MixedDepthwiseConv2d`, whose parameters are called `0.weight`, `1.weight`, ...

    Raises:
        ValueError: If a kernel size is even or below 1, a group is empty, `split` or `padding` is
            unknown, stride or dilation is below 1, or `dilated` is given with a stride above 1.
    """
    if not isinstance(kernel_sizes, int | Sequence) or isinstance(kernel_sizes, str):
        raise ValueError(f"kernel_sizes={kernel_sizes!r}: give an odd number or a list of them")
    sizes = (kernel_sizes,) if isinstance(kernel_sizes, int) else kernel_sizes
    convs = [
        DepthwiseConv2d(count, size, stride, dilation, padding, dilated)
        for count, size in zip(split_channels(channels, len(sizes), split), sizes, strict=True)
    ]
    return convs[0] if len(convs) == 1 else MixedDepthwiseConv2d(convs)


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with one kernel size and without bias, see `MixConv2d`.

    Args:
        channels: Channels in and out.
        kernel_size: An odd number.
        stride: See `MixConv2d`.
        dilation: See `MixConv2d`.
        padding: See `MixConv2d`.
        dilated: See `MixConv2d`.

    Raises:
        ValueError: If the kernel size is even or below 1, `padding` is unknown, stride or dilation
            is below 1, or `dilated` is given with a stride above 1.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        padding: str = "symmetric",
        dilated: bool = False,
    ) -> None:
        if not _is_int(kernel_size) or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"kernel size {kernel_size!r} is not an odd number of pixels: use 3, 5, 7, ..."
            )
        if padding not in PADDINGS:
            raise ValueError(f"padding={padding!r} is unknown: use one of {PADDINGS}")
        if not (_is_int(stride) and _is_int(dilation)) or min(stride, dilation) < 1:
            raise ValueError(
                f"stride={stride!r} and dilation={dilation!r} must be whole numbers of 1 or more"
            )
        if dilated:
            if stride > 1:
                raise ValueError(
                    f"dilated=True works at stride 1 only, not {stride}: use stride=1 or "
                    "dilated=False"
                )
            if kernel_size > 3:
                kernel_size, dilation = 3, dilation * (kernel_size - 1) // 2
        pads_same = padding == "same" and stride > 1  # at stride 1 both paddings are symmetric
        super().__init__(
            channels,
            channels,
            kernel_size,
            stride,
            padding=0 if pads_same else dilation * (kernel_size - 1) // 2,
            dilation=dilation,
            groups=channels,
            bias=False,
        )
        self.pads_same = pads_same

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H/stride), ceil(W/stride))."""
        if self.pads_same:
            x = pad_same(x, self.kernel_size[0], self.stride[0], self.dilation[0])
        # `depthwise_conv` does not support a bias, which folding batch norm adds. A caller may also
        # have set attributes to other values than `__init__` does
        supported = (
            self.bias is None
            and self.padding_mode == "zeros"
            and self.dilation == (1, 1)
            and self.stride[0] == self.stride[1]
            and self.padding[0] == self.padding[1]
        )
        if not supported:
            return super().forward(x)
        return depthwise_conv(x, self.weight, self.stride[0], self.padding[0], self.groups)

    @property
    def extent(self) -> int:
        """The distance in pixels between the outermost columns of the kernel. It is even."""
        return self.dilation[0] * (self.kernel_size[0] - 1)

    def merged(self) -> nn.Conv2d:
        """Return an `nn.Conv2d` with equal outputs, see `MixedDepthwiseConv2d.merged`."""
        return merge_depthwise([self]).train(self.training)

    def merged_kernel_sizes(self) -> list[int]:
        """Return each channel's kernel size, see `MixedDepthwiseConv2d.merged_kernel_sizes`."""
        return merged_kernel_sizes([self])

    def fused(self, form: FusedForm) -> nn.Conv2d:
        """Return the convolution that replaces this module in `mixdet.models.fusing.fuse`."""
        return self.merged()


class MixedDepthwiseConv2d(SplitConv2d):
    """Depthwise convolutions with different kernel sizes side by side, see `MixConv2d`.

    Args:
        convs: The `DepthwiseConv2d` of each group, in the order of the channels.
    """

    def merged(self) -> nn.Conv2d:
        """Make one depthwise convolution with equal outputs.

        The kernels are zero-padded to the size of the largest one. Kernels of different dilations
        get a common dilation, and zeros between their weights. The merged convolution needs more
        multiplications than the separate ones, but less memory traffic.

        Returns:
            A new `nn.Conv2d` with a copy of the weights. With SAME padding and a stride above 1, it
            is a `Conv2dSame`.

        Raises:
            ValueError: With SAME padding, if some kernels are narrower than the stride and others
                are wider. The offset between their centers then depends on the input size.
        """
        return merge_depthwise(list(self.children())).train(self.training)

    def merged_kernel_sizes(self) -> list[int]:
        """Return the kernel size that each channel has in `merged()` before zero-padding."""
        return merged_kernel_sizes(list(self.children()))

    def fused(self, form: FusedForm) -> nn.Conv2d:
        """Return the convolution that replaces this module in `mixdet.models.fusing.fuse`."""
        return self.merged()


@torch.no_grad()
def merge_depthwise(convs: Sequence[DepthwiseConv2d]) -> nn.Conv2d:
    """Make one depthwise convolution out of several, see `MixedDepthwiseConv2d.merged`."""
    stride, same = convs[0].stride[0], convs[0].pads_same
    largest = max(conv.extent for conv in convs)
    if same and min(conv.extent for conv in convs) < min(stride - 1, largest):
        raise ValueError(
            "kernels narrower than the stride cannot be merged with wider ones under "
            "padding='same', where their centers depend on the size of the input: "
            "use padding='symmetric' or larger kernels"
        )
    dilation = _common_dilation(convs)
    size = largest // dilation + 1
    kernels = []
    for conv in convs:
        kernel = conv.weight.new_zeros(conv.in_channels, 1, size, size)
        border = (size - 1 - conv.extent // dilation) // 2
        taps = slice(border, size - border, conv.dilation[0] // dilation)
        kernel[:, :, taps, taps] = conv.weight
        kernels.append(kernel)
    weight = torch.cat(kernels)
    merged = (Conv2dSame if same else nn.Conv2d)(
        len(weight),
        len(weight),
        size,
        stride,
        padding=0 if same else largest // 2,
        dilation=dilation,
        groups=len(weight),
        bias=False,
        device="meta",
    )
    merged.weight = nn.Parameter(weight, requires_grad=convs[0].weight.requires_grad)
    return merged


def merged_kernel_sizes(convs: Sequence[DepthwiseConv2d]) -> list[int]:
    """Return each channel's kernel size after all kernels got the largest common dilation."""
    dilation = _common_dilation(convs)
    return [conv.extent // dilation + 1 for conv in convs for _ in range(conv.in_channels)]


def _common_dilation(convs: Sequence[DepthwiseConv2d]) -> int:
    return math.gcd(*(conv.dilation[0] for conv in convs))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
