"""Layers between tensors that are whole or split into parts, see `ChannelLayout`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mixdet.models.fusing.layout import ChannelLayout, Range

Parts = Tensor | list[Tensor]  # a whole tensor (N, C, H, W), or the parts (N, C_i, H, W) of one


class PerPart(nn.Module):
    """Apply a module, such as an activation, to each part of a tensor."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Parts) -> Parts:
        return [self.module(part) for part in x] if isinstance(x, list) else self.module(x)


class Source(NamedTuple):
    """What a convolution reads: the parts [first, end) of a tensor, joined, or some channels."""

    parts: Range
    channels: Range | None  # of the only part; None reads all

    def read(self, parts: Sequence[Tensor]) -> Tensor:
        parts = parts[slice(*self.parts)]
        x = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return x if self.channels is None else x[:, slice(*self.channels)]


class PartitionedConv2d(nn.ModuleList):
    """A convolution between tensors that may be split, made by `partition_conv`.

    A part of the output is a piece, or several pieces that are concatenated. A piece is the sum of
    one or several convolutions. Runtimes add while they convolve.

    Args:
        convs: The convolutions, in the order of the pieces.
        sources: What each convolution reads.
        pieces: For each part of the output, the number of convolutions of each piece.
    """

    allow_inplace = False  # a sum may be written over one of its terms

    def __init__(
        self, convs: Iterable[nn.Module], sources: Sequence[Source], pieces: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(convs)
        self.sources, self.pieces = sources, pieces

    def forward(self, x: Parts, shortcut: Parts | None = None) -> Parts:
        """Convolve (N, C, H, W) to (N, C', H', W'), and add a shortcut of the output's layout."""
        parts, shortcuts = as_list(x), as_list(shortcut)
        inputs = {source: source.read(parts) for source in dict.fromkeys(self.sources)}
        terms = iter([(conv, inputs[source]) for conv, source in zip(self, self.sources)])
        outputs = []
        for index, counts in enumerate(self.pieces):
            added = shortcuts[index] if shortcuts else None
            if len(counts) == 1:
                outputs.append(self._sum(islice(terms, counts[0]), added))
            else:
                y = torch.cat([self._sum(islice(terms, count)) for count in counts], 1)
                outputs.append(self._add(y, added))
        return outputs if len(outputs) > 1 else outputs[0]

    def _sum(self, terms: Iterable, total: Tensor | None = None) -> Tensor:
        for conv, x in terms:
            total = self._add(conv(x), total)
        return total

    def _add(self, y: Tensor, x: Tensor | None) -> Tensor:
        if x is None:
            return y
        return y.add_(x) if self.allow_inplace else y + x


class PartitionedSqueezeExcite(nn.Module):
    """A `mixdet.models.layers.SqueezeExcite` of a tensor that may be split."""

    allow_inplace = False  # the output may be written over the input

    def __init__(self, se: nn.Module, layout: ChannelLayout) -> None:
        super().__init__()
        reduced = ChannelLayout([se.conv_reduce.out_channels])
        self.conv_reduce = partition_conv(se.conv_reduce, layout, reduced)
        self.act1, self.gate = se.act1, se.gate
        self.conv_expand = partition_conv(se.conv_expand, reduced, layout)

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        means = [x.mean((2, 3), keepdim=True) for x in parts]
        scales = as_list(self.conv_expand(self.act1(self.conv_reduce(means))))
        multiply = torch.Tensor.mul_ if self.allow_inplace else torch.mul
        return [multiply(x, self.gate(scale)) for x, scale in zip(parts, scales, strict=True)]


def as_list(x: Parts | None) -> list[Tensor]:
    """The parts of a tensor; one if it is whole, none of None."""
    return x if isinstance(x, list) else [] if x is None else [x]


@torch.no_grad()
def partition_conv(
    conv: nn.Conv2d,
    inputs: ChannelLayout,
    outputs: ChannelLayout,
    groups: tuple[ChannelLayout, ChannelLayout] | None = None,
) -> PartitionedConv2d:
    """Split a convolution that has a bias.

    A convolution that has more outputs than inputs reads several parts joined, which copies the
    smaller side. Any other convolves each part by itself and adds the results.

    Args:
        conv: The convolution. Its weight is zero between groups.
        inputs: The layout of its input.
        outputs: The layout of its output.
        groups: Its groups of input and output channels; None is one group.
    """
    groups = groups or (ChannelLayout([conv.in_channels]), ChannelLayout([conv.out_channels]))
    located = list(zip(inputs.locate(groups[0]), outputs.locate(groups[1]), strict=True))
    weight, bias = inputs.pad(outputs.pad(conv.weight, 0), 1), outputs.pad(conv.bias, 0)
    convs, sources, pieces = [], [], []
    for start, stop in outputs.locate(outputs):
        counts = []
        for read, (first, end) in located:
            rows = slice(max(start, first), min(stop, end))
            if rows.start >= rows.stop:
                continue
            terms = _sources(inputs, read, joined=conv.in_channels < conv.out_channels)
            for index, (source, columns) in enumerate(terms):
                term_bias = None if index else bias[rows]
                convs.append(_like(conv, weight[rows, slice(*columns)], term_bias))
                sources.append(source)
            counts.append(len(terms))
        pieces.append(counts)
    return PartitionedConv2d(convs, sources, pieces)


def _sources(inputs: ChannelLayout, read: Range, joined: bool) -> list[tuple[Source, Range]]:
    """What is read of a range of channels, and the weight's columns for it."""
    ranges = inputs.locate(inputs)
    met = [i for i, (first, end) in enumerate(ranges) if first < read[1] and read[0] < end]
    start = ranges[met[0]][0]
    if len(met) == 1 and ranges[met[0]] != read:
        return [(Source((met[0], met[0] + 1), (read[0] - start, read[1] - start)), read)]
    if joined:
        return [(Source((met[0], met[-1] + 1), None), (start, ranges[met[-1]][1]))]
    return [(Source((index, index + 1), None), ranges[index]) for index in met]


@torch.no_grad()
def partition_depthwise(
    conv: nn.Conv2d, layout: ChannelLayout, kernel_sizes: Sequence[int]
) -> nn.ModuleList:
    """Split a depthwise convolution into one for each part, with the kernel size that it needs."""
    weight, bias, convs = layout.pad(conv.weight, 0), layout.pad(conv.bias, 0), []
    for rows, size in zip(layout.locate(layout), kernel_sizes, strict=True):
        border = (conv.kernel_size[0] - size) // 2
        inner = slice(border, border + size)
        padding = max(0, conv.padding[0] - border * conv.dilation[0])  # 0 where SAME pads itself
        rows = slice(*rows)
        convs.append(
            _like(conv, weight[rows, :, inner, inner], bias[rows], len(bias[rows]), padding)
        )
    return nn.ModuleList(convs)


def _like(
    conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, groups: int = 1, padding=None
) -> nn.Conv2d:
    """A convolution like another one, with another weight."""
    shape = weight.shape[1] * groups, len(weight), weight.shape[-1]
    padding = conv.padding if padding is None else padding
    new = type(conv)(*shape, conv.stride, padding, conv.dilation, groups, device="meta")
    new.weight = nn.Parameter(weight.clone())
    new.bias = None if bias is None else nn.Parameter(bias.clone())
    return new
