"""Convolutions between tensors whose channels lie apart, in parts, and what else a block needs.

Where a tensor (N, C, H, W) lies in one part it is a tensor, and else a list of (N, C_i, H, W).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixdet.models.layers import SqueezeExcite
from mixdet.models.layers.blocks import added, scaled


class Share(NamedTuple):
    """The channels of a part.

    Attributes:
        channels: How many of the tensor's.
        spare: How many channels of zeros follow.
    """

    channels: int
    spare: int = 0


class Each(nn.Module):
    """A module of one tensor, for every part.

    Args:
        module: What computes each part by itself.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """(N, C, H, W), or a (N, C_i, H, W) a part -> the same with H', W'."""
        return [self.module(part) for part in x] if isinstance(x, list) else self.module(x)


class Read(NamedTuple):
    """What a convolution reads.

    Attributes:
        parts: The parts [first, end), joined if they are several.
        channels: Those [first, end) of a single part; None is all.
    """

    parts: tuple[int, int]
    channels: tuple[int, int] | None

    def of(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts (N, C_i, H, W) -> (N, C, H, W)."""
        read = parts[slice(*self.parts)]
        x = read[0] if len(read) == 1 else torch.cat(tuple(read), 1)
        return x if self.channels is None else x[:, slice(*self.channels)]


class Dealt(nn.ModuleList):
    """A convolution between tensors whose channels lie in parts, see `deal`.

    Args:
        convs: The convolutions of which it is made.
        reads: What each reads.
        writes: The piece of the output that each is a summand of, in ascending order. Runtimes add
            while they convolve.
        outputs: The pieces [first, end) of each output, joined if they are several.

    Attributes:
        overwrites: A sum takes the place of a convolution's output.
    """

    overwrites = False

    def __init__(
        self,
        convs: Iterable[nn.Module],
        reads: Sequence[Read],
        writes: Sequence[int],
        outputs: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__(convs)
        self.reads, self.writes, self.outputs = tuple(reads), tuple(writes), tuple(outputs)

    def forward(
        self, x: Tensor | list[Tensor], onto: Tensor | list[Tensor] | None = None
    ) -> Tensor | list[Tensor]:
        """Convolve.

        Args:
            x: (N, C, H, W), or a (N, C_i, H, W) a part.
            onto: What is added, of the output's form: first, while the first convolution computes.

        Returns:
            (N, C', H', W'), or a (N, C'_i, H', W') a part.
        """
        parts, base = listed(x), listed(onto)
        read = {source: source.of(parts) for source in dict.fromkeys(self.reads)}
        single = len(self.outputs) == self.writes[-1] + 1  # each output is one piece
        pieces = dict(enumerate(base if single else ()))
        for conv, source, piece in zip(self, self.reads, self.writes, strict=True):
            y = conv(read[source])
            pieces[piece] = added(y, pieces[piece], self.overwrites) if piece in pieces else y
        outputs = [*pieces.values()]
        if not single:
            outputs = [torch.cat(outputs[first:end], 1) for first, end in self.outputs]
            for index, part in enumerate(base):
                outputs[index] = added(outputs[index], part, self.overwrites)
        return outputs if len(outputs) > 1 else outputs[0]


class DealtSqueezeExcite(nn.Module):
    """A squeeze-excite whose channels lie in parts.

    Args:
        se: The one to take apart.
        shares: Channels of each part.

    Attributes:
        overwrites: As `SqueezeExcite`'s.
    """

    overwrites = False

    def __init__(self, se: SqueezeExcite, shares: Sequence[Share]) -> None:
        super().__init__()
        reduced = [Share(se.conv_reduce.out_channels)]
        self.conv_reduce = deal(se.conv_reduce, shares, reduced)
        self.act1 = se.act1
        self.conv_expand = deal(se.conv_expand, reduced, shares)
        self.gate = se.gate

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        """A (N, C_i, H, W) a part, in and out."""
        means = [x.mean((2, 3), keepdim=True) for x in parts]
        scales = listed(self.conv_expand(self.act1(self.conv_reduce(means))))
        return [
            scaled(x, self.gate(scale), self.overwrites)
            for x, scale in zip(parts, scales, strict=True)
        ]


def deal(
    conv: nn.Conv2d,
    inputs: Sequence[Share],
    outputs: Sequence[Share],
    lanes: Sequence[tuple[int, int]] = (),
) -> Dealt:
    """Make a convolution one between parts.

    What widens reads parts joined, which is a copy of the smaller side; what does not, adds.

    Args:
        conv: The convolution, with zeros between lanes.
        inputs: The parts of its input.
        outputs: Those of its output.
        lanes: The (channels in, channels out) of the convolutions side by side of which it was
            made; without, one.
    """
    lanes = lanes or [(conv.in_channels, conv.out_channels)]
    sources, targets = (ranges(side) for side in zip(*lanes, strict=True))
    convs, reads, writes, ends = [], [], [], [0]
    for output, (_, spare) in zip(_parts(outputs), outputs, strict=True):
        piece = ends[-1]
        for source, target in zip(sources, targets, strict=True):
            first, end = max(output[0], target[0]), min(output[1], target[1])
            if first >= end:
                continue
            below = spare if end == output[1] else 0
            bias = F.pad(conv.bias[first:end], (0, below))
            weight = F.pad(conv.weight[first:end], (0, 0, 0, 0, 0, 0, 0, below))
            widens = conv.in_channels < conv.out_channels
            for read, columns in _columns(weight, inputs, source, widens):
                convs.append(_like(conv, columns, bias))
                reads.append(read)
                writes.append(piece)
                bias = None  # the first one's alone
            piece += 1
        ends.append(piece)
    return Dealt(convs, reads, writes, [*pairwise(ends)])


def _columns(
    weight: Tensor, inputs: Sequence[Share], source: tuple[int, int], widens: bool
) -> list[tuple[Read, Tensor]]:
    """What a lane reads of the parts of an input, and the weights for it."""
    parts = _parts(inputs)
    met = [index for index, part in enumerate(parts) if _meet(part, source)]
    start = parts[met[0]][0]
    if len(met) == 1 and parts[met[0]] != source:
        read = Read((met[0], met[0] + 1), (source[0] - start, source[1] - start))
        return [(read, weight[:, slice(*source)])]
    columns = [
        F.pad(weight[:, slice(*parts[index])], (0, 0, 0, 0, 0, inputs[index].spare))
        for index in met
    ]
    if widens:
        return [(Read((met[0], met[-1] + 1), None), torch.cat(columns, 1))]
    return [
        (Read((index, index + 1), None), each) for index, each in zip(met, columns, strict=True)
    ]


def deal_depthwise(conv: nn.Conv2d, shares: Sequence[Share], sizes: Sequence[int]) -> nn.ModuleList:
    """Cut a merged depthwise convolution up, each part with the kernel that it needs."""
    convs, start = [], 0
    for (channels, spare), size in zip(shares, sizes, strict=True):
        rows = slice(start, start + channels)
        border = (conv.kernel_size[0] - size) // 2
        inner = slice(border, border + size)
        padding = max(0, conv.padding[0] - border * conv.dilation[0])  # SAME pads by itself
        weight = F.pad(conv.weight[rows, :, inner, inner], (0, 0, 0, 0, 0, 0, 0, spare))
        bias = F.pad(conv.bias[rows], (0, spare))
        convs.append(_like(conv, weight, bias, channels + spare, padding))
        start += channels
    return nn.ModuleList(convs)


def listed(x: Tensor | list[Tensor] | None) -> list[Tensor]:
    """The parts of what has one, several or none."""
    return x if isinstance(x, list) else [] if x is None else [x]


def ranges(shares: Iterable[int]) -> list[tuple[int, int]]:
    """The [first, end) of each share."""
    return [*pairwise(accumulate(shares, initial=0))]


def _parts(shares: Iterable[Share]) -> list[tuple[int, int]]:
    """The channels [first, end) of a tensor that lie in each part."""
    return ranges(share.channels for share in shares)


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])


def _like(
    conv: nn.Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    groups: int = 1,
    padding: int | None = None,
) -> nn.Conv2d:
    """A convolution as another, with other weights."""
    made = type(conv)(
        weight.shape[1] * groups,
        len(weight),
        weight.shape[-1],
        conv.stride,
        conv.padding if padding is None else padding,
        conv.dilation,
        groups,
        bias is not None,
        device="meta",
    )
    made.weight = nn.Parameter(weight.clone())
    if bias is not None:
        made.bias = nn.Parameter(bias.clone())
    return made
