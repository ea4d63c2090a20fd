"""MixConv: a depthwise convolution whose channel groups have kernels of different sizes.

Tan and Le, "MixConv: Mixed Depthwise Convolutional Kernels", BMVC 2019, arXiv 1907.09595.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixdet.models.layers.depthwise import depthwise_conv

PADDINGS = ("symmetric", "same")
SPLITS = ("equal", "exponential")


def split_channels(channels: int, groups: int, split: str = "equal") -> list[int]:
    """Share out channels among groups (the paper, section 3.2).

    Args:
        channels: How many there are.
        groups: How many groups share them.
        split: 'equal' gives every group the same number and a remainder to the first group
            (64 in 4 is 16, 16, 16, 16); 'exponential' gives group i, counted from 1,
            floor(channels / 2^i) and the last group the rest (64 in 4 is 32, 16, 8, 8).

    Returns:
        The channels of each group; their sum is `channels`.

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
        share = channels // groups
        return [channels - share * (groups - 1)] + [share] * (groups - 1)
    shares = [channels >> i for i in range(1, groups)]
    shares.append(channels - sum(shares))
    if 0 in shares:
        raise ValueError(
            f"split='exponential' leaves a group of {channels} channels in {groups} groups empty "
            f"({shares}): use fewer kernel sizes, or split='equal'"
        )
    return shares


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def pad_same(x: Tensor, kernel_size: int, stride: int, dilation: int = 1) -> Tensor:
    """Pad with zeros as TensorFlow's SAME does; the odd pixel goes to the right and the bottom.

    Args:
        x: (N, C, H, W).
        kernel_size: Side of the convolution's kernel.
        stride: Its stride.
        dilation: Its dilation.

    Returns:
        The tensor on which the unpadded convolution gives (ceil(H/stride), ceil(W/stride)) cells.
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

    They are children called '0', '1', ..., as in timm, so that weights load by name.

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
        return torch.cat([conv(group) for conv, group in zip(convs, groups, strict=True)], 1)


class MixConv2d(SplitConv2d):
    """Depthwise convolution with one kernel size a channel group; it has no bias.

    With a single kernel size it is a plain depthwise convolution: the object is then also an
    `nn.Conv2d` whose one parameter is called `weight`.

    Args:
        channels: Channels in and out.
        kernel_sizes: One odd number, or one a group, for the groups in order.
        stride: Of all groups.
        dilation: Of all groups.
        split: 'equal' or 'exponential', see `split_channels`.
        padding: 'symmetric', or 'same' for TensorFlow's, which differs at strides above 1.
        dilated: Replace each K x K kernel by 3 x 3 at dilation (K - 1) / 2, which covers the same
            window (the paper, section 3.2); stride 1 only.

    Raises:
        ValueError: If a kernel size is even or below 1, a group is empty, `split` or `padding` is
            unknown, stride or dilation is below 1, or `dilated` meets a stride.
    """

    def __new__(cls, channels: int = 0, kernel_sizes: int | Sequence[int] = (3, 5, 7), *_, **__):
        # As pathlib.Path does: the class names the family, the arguments choose the member.
        # Copying calls this without arguments and with the member itself.
        if not isinstance(kernel_sizes, int | Sequence) or isinstance(kernel_sizes, str):
            raise ValueError(f"kernel_sizes={kernel_sizes!r}: give an odd number or a list of such")
        one = isinstance(kernel_sizes, int) or len(kernel_sizes) == 1
        return super().__new__(DepthwiseConv2d if cls is MixConv2d and one else cls)

    def __init__(
        self,
        channels: int,
        kernel_sizes: int | Sequence[int] = (3, 5, 7),
        stride: int = 1,
        dilation: int = 1,
        split: str = "equal",
        padding: str = "symmetric",
        dilated: bool = False,
    ) -> None:
        shares = split_channels(channels, len(kernel_sizes), split)
        super().__init__(
            DepthwiseConv2d(share, size, stride, dilation, padding=padding, dilated=dilated)
            for share, size in zip(shares, kernel_sizes, strict=True)
        )

    def _groups(self) -> list[DepthwiseConv2d]:
        return list(self.children())

    @torch.no_grad()
    def merged(self) -> nn.Conv2d:
        """Make the one depthwise convolution that computes the same.

        The kernels are zero-padded to the largest; dilated ones are spread out as far as a common
        dilation needs. It costs more multiplications and less memory traffic.

        Returns:
            A new `nn.Conv2d` with a copy of the weights; at SAME padding and a stride, a
            `Conv2dSame`.

        Raises:
            ValueError: If SAME padding moves the groups against each other in a way that depends
                on the input: a kernel narrower than the stride beside wider ones.
        """
        groups = self._groups()
        stride = groups[0].stride[0]
        same = groups[0].pads_same
        # From a kernel's first tap to its last, in pixels. Always even, so centers coincide.
        extents = [conv.dilation[0] * (conv.kernel_size[0] - 1) for conv in groups]
        if same and min(extents) < min(stride - 1, max(extents)):
            raise ValueError(
                "kernels narrower than the stride cannot be merged with wider ones under "
                "padding='same', where their centers depend on the size of the input: "
                "use padding='symmetric' or larger kernels"
            )
        dilation = math.gcd(*(conv.dilation[0] for conv in groups))
        size = max(extents) // dilation + 1
        kernels = []
        for conv, extent in zip(groups, extents, strict=True):
            kernel = conv.weight.new_zeros(conv.in_channels, 1, size, size)
            border = (size - 1 - extent // dilation) // 2
            taps = slice(border, size - border, conv.dilation[0] // dilation)
            kernel[:, :, taps, taps] = conv.weight
            kernels.append(kernel)
        weight = torch.cat(kernels)
        conv = (Conv2dSame if same else nn.Conv2d)(
            len(weight),
            len(weight),
            size,
            stride,
            padding=0 if same else max(extents) // 2,
            dilation=dilation,
            groups=len(weight),
            bias=False,
            device="meta",
        )
        conv.weight = nn.Parameter(weight, requires_grad=groups[0].weight.requires_grad)
        return conv.train(self.training)


# What `help` shows, in place of `__new__`'s
MixConv2d.__signature__ = inspect.signature(partial(MixConv2d.__init__, None))


class DepthwiseConv2d(MixConv2d, nn.Conv2d):
    """The `MixConv2d` with one kernel size, which is how to make it; arguments as there."""

    def __init__(
        self,
        channels: int,
        kernel_sizes: int | Sequence[int] = 3,
        stride: int = 1,
        dilation: int = 1,
        split: str = "equal",
        padding: str = "symmetric",
        dilated: bool = False,
    ) -> None:
        (size,) = (kernel_sizes,) if isinstance(kernel_sizes, int) else kernel_sizes
        split_channels(channels, 1, split)  # refuses what is out of range
        if not _whole(size) or size < 1 or size % 2 == 0:
            raise ValueError(
                f"kernel size {size!r} is not an odd number of pixels: use 3, 5, 7, ..."
            )
        if padding not in PADDINGS:
            raise ValueError(f"padding={padding!r} is unknown: use one of {PADDINGS}")
        if not (_whole(stride) and _whole(dilation)) or min(stride, dilation) < 1:
            raise ValueError(
                f"stride={stride!r} and dilation={dilation!r} must be whole numbers of 1 or more"
            )
        if dilated:
            if stride > 1:
                raise ValueError(f"dilated=True works at stride 1 only, not {stride}: drop one")
            if size > 3:
                size, dilation = 3, dilation * (size - 1) // 2
        pads_same = padding == "same" and stride > 1  # at stride 1 both paddings are symmetric
        nn.Conv2d.__init__(
            self,
            channels,
            channels,
            size,
            stride,
            padding=0 if pads_same else dilation * (size - 1) // 2,
            dilation=dilation,
            groups=channels,
            bias=False,
        )
        self.pads_same = pads_same

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H/stride), ceil(W/stride))."""
        if self.pads_same:
            x = pad_same(x, self.kernel_size[0], self.stride[0], self.dilation[0])
        # folding leaves a bias; others may have changed the rest
        plain = (
            self.bias is None
            and self.padding_mode == "zeros"
            and self.dilation == (1, 1)
            and self.stride[0] == self.stride[1]
            and self.padding[0] == self.padding[1]
        )
        if not plain:
            return nn.Conv2d.forward(self, x)
        return depthwise_conv(x, self.weight, self.stride[0], self.padding[0], self.groups)

    def _groups(self) -> list[DepthwiseConv2d]:
        return [self]
