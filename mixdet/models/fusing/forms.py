"""The form of a fused network that was measured to be fastest for each runtime."""

from __future__ import annotations

from typing import NamedTuple

BLOCK = 16  # ONNX Runtime and OpenVINO convolve channels in blocks of 8 (AVX2) or 16 (AVX-512)


class FusedForm(NamedTuple):
    """What differs from runtime to runtime; docs/fusing.md has the measurements.

    Attributes:
        min_group_channels: Groups of a 1x1 convolution are split if each has so many channels in
            and out, and become one dense convolution otherwise. None keeps a grouped convolution.
        min_group_channels_int8: The same in 8 bits.
        min_part_channels: Zeros fill up the parts of a split tensor to this many channels.
        inplace: Squeeze-excite and shortcuts write over their input, which only PyTorch needs.
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
