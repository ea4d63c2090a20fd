"""Layers whose input and output may be split into parts, see `ChannelLayout`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import islice, pairwise

import torch
from torch import Tensor, nn

from mixdet.models.fusing.layout import ChannelLayout, Range

Parts = Tensor | list[Tensor]  # a whole tensor (N, C, H, W), or a list of its parts (N, C_i, H, W)
Groups = tuple[ChannelLayout, ChannelLayout] | None  # of input and output; None for a single group
Source = tuple[Range, Range | None]  # parts to join; channels to read, or None for all of them


def as_list(x: Parts | None) -> list[Tensor]:
    """Return the parts as a list. A whole tensor gives a list of one, and None an empty list."""
    return x if isinstance(x, list) else [] if x is None else [x]


class PerPart(nn.Sequential):
    """Apply a module, such as an activation, to each part of a tensor."""

    def forward(self, x: Parts) -> Parts:
        (module,) = self
        return [module(part) for part in x] if isinstance(x, list) else module(x)


class PartitionedConv2d(nn.ModuleList):
    """A convolution whose input and output may be split into parts.

    A part of the output is one piece, or several concatenated pieces. A piece is the sum of
    convolutions of input parts. Runtimes sum up while they convolve. If the input has fewer
    channels than the output, input parts are joined for one convolution, since this copies little.
    `conv` must have a bias. Its weight must be zero between different `groups`.
    """

    allow_inplace = False  # a sum may be written over one of its terms

    @torch.no_grad()
    def __init__(
        self, conv: nn.Conv2d, inputs: ChannelLayout, outputs: ChannelLayout, groups: Groups = None
    ) -> None:
        super().__init__()
        self.sources: list[Source] = []  # what each convolution reads
        self.pieces: list[list[int]] = []  # per output part, the number of convolutions per piece
        join = conv.in_channels < conv.out_channels
        groups = groups or (ChannelLayout([conv.in_channels]), ChannelLayout([conv.out_channels]))
        ranges = list(zip(inputs.locate(groups[0]), outputs.locate(groups[1]), strict=True))
        weight, bias = inputs.pad(outputs.pad(conv.weight, 0), 1), outputs.pad(conv.bias, 0)
        for start, stop in outputs.locate(outputs):
            counts = []
            for channels, (first, end) in ranges:
                rows = slice(max(start, first), min(stop, end))
                sources = _sources(inputs, *channels, join) if rows.start < rows.stop else []
                for index, (source, columns) in enumerate(sources):
                    self.sources.append(source)
                    term = weight[rows, slice(*columns)]
                    self.append(_like(conv, term, None if index else bias[rows]))
                counts.append(len(sources))
            self.pieces.append([count for count in counts if count])

    def forward(self, x: Parts, shortcut: Parts | None = None) -> Parts:
        """Convolve (N, C, H, W) to (N, C', H', W'), and add a shortcut with the output's layout."""
        parts = as_list(x)
        shortcuts = as_list(shortcut) or [None] * len(self.pieces)
        inputs = {source: _read(parts, source) for source in dict.fromkeys(self.sources)}
        terms = (conv(inputs[source]) for conv, source in zip(self, self.sources, strict=True))
        outputs = []
        for counts, added in zip(self.pieces, shortcuts, strict=True):
            if len(counts) == 1:
                outputs.append(reduce(self._add, islice(terms, counts[0]), added))
            else:
                pieces = [reduce(self._add, islice(terms, count)) for count in counts]
                outputs.append(self._add(added, torch.cat(pieces, 1)))
        return outputs if len(outputs) > 1 else outputs[0]

    def _add(self, total: Tensor | None, y: Tensor) -> Tensor:
        if total is None:
            return y
        return y.add_(total) if self.allow_inplace else y + total


def _read(parts: Sequence[Tensor], source: Source) -> Tensor:
    (first, end), channels = source
    x = parts[first] if end - first == 1 else torch.cat(parts[first:end], 1)
    return x[:, slice(*channels)] if channels else x


def _sources(inputs: ChannelLayout, start: int, stop: int, join: bool) -> list:
    """Return the sources of the channels [start, stop), each with its columns of the weight."""
    ranges = inputs.locate(inputs)
    parts = [i for i, (first, end) in enumerate(ranges) if first < stop and start < end]
    first, end = ranges[parts[0]][0], ranges[parts[-1]][1]
    if len(parts) == 1 and (first, end) != (start, stop):
        return [(((parts[0], parts[0] + 1), (start - first, stop - first)), (start, stop))]
    if join:
        return [(((parts[0], parts[-1] + 1), None), (first, end))]
    return [(((part, part + 1), None), ranges[part]) for part in parts]


@torch.no_grad()
def split_depthwise(
    conv: nn.Conv2d, layout: ChannelLayout, kernel_sizes: Sequence[int]
) -> nn.ModuleList:
    """Split a depthwise convolution with a bias. Each part gets the size of its largest kernel."""
    weight, bias, convs = layout.pad(conv.weight, 0), layout.pad(conv.bias, 0), []
    ends = pairwise([0, *layout.boundaries, len(kernel_sizes)])
    for (start, stop), (first, end) in zip(ends, layout.locate(layout), strict=True):
        size = max(kernel_sizes[start:stop])
        border = (conv.kernel_size[0] - size) // 2
        inner = slice(border, border + size)
        convs.append(_like(conv, weight[first:end, :, inner, inner], bias[first:end], end - first))
        padding = max(0, conv.padding[0] - border * conv.dilation[0])  # `Conv2dSame` pads by itself
        convs[-1].padding = padding, padding
    return nn.ModuleList(convs)


def _like(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, groups: int = 1) -> nn.Conv2d:
    """Make a convolution with the type, stride, padding and dilation of `conv` and new weights."""
    shape = weight.shape[1] * groups, len(weight), weight.shape[-1]
    new = type(conv)(*shape, conv.stride, conv.padding, conv.dilation, groups, device="meta")
    new.weight = nn.Parameter(weight.clone())
    new.bias = None if bias is None else nn.Parameter(bias.clone())
    return new
