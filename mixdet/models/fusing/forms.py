"""The form of a fused network for each runtime: the settings that were measured to be fastest."""

from __future__ import annotations

from typing import NamedTuple

BLOCK = 16  # ONNX Runtime and OpenVINO convolve channels in blocks of 8 (AVX2) or 16 (AVX-512)


class FusedForm(NamedTuple):
    """The settings of `fuse` that depend on the runtime. docs/fusing.md has the measurements.

    Attributes:
        min_group_channels: A grouped 1x1 convolution is split by group if every group has at least
            this many input and output channels. Otherwise it becomes dense. None keeps it grouped.
        min_group_channels_int8: The same for a network that is quantized to 8 bits.
        min_part_channels: Each part of a split tensor is zero-padded to this many channels.
        inplace: Squeeze-excite and shortcuts write over their input. Used only for PyTorch.
    """

    min_group_channels: int | None = 12
    min_group_channels_int8: int | None = 32
    min_part_channels: int = 0
    inplace: bool = False


FUSED_FORMS = {
    "onnx": FusedForm(min_part_channels=BLOCK),
    **dict.fromkeys(("openvino", "litert", "executorch"), FusedForm()),
    "ncnn": FusedForm(min_group_channels=None, min_group_channels_int8=None),
    "torch": FusedForm(min_group_channels=None, min_group_channels_int8=None, inplace=True),
}
