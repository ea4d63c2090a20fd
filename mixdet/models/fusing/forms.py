"""The form of a fused network that was measured to be fastest for each runtime."""

from __future__ import annotations

from typing import NamedTuple

# The convolutions of ONNX Runtime and OpenVINO compute channels in blocks of 8 (AVX2) or 16
# (AVX-512).
BLOCK = 16


class FusedForm(NamedTuple):
    """What differs from runtime to runtime; docs/fusing.md has the measurements.

    Attributes:
        min_group_channels: 1x1 convolutions side by side stay apart if each has at least this many
            channels in and out. Narrower ones become one dense convolution, with zeros between the
            groups. None keeps them as one grouped convolution.
        min_group_channels_int8: The same for a network that is to be quantized to 8 bits.
        min_part_channels: Parts of a tensor with fewer channels are padded with zeros. ONNX Runtime
            takes three times as long for narrower ones, which it reads like images.
        inplace: Squeeze-excite and shortcuts write over their input. Runtimes other than PyTorch
            decide that themselves.
    """

    min_group_channels: int | None = 12
    min_group_channels_int8: int | None = 32
    min_part_channels: int = 0
    inplace: bool = False


FUSED_FORMS = {
    "onnx": FusedForm(min_part_channels=BLOCK),
    "openvino": FusedForm(),
    "litert": FusedForm(),
    "executorch": FusedForm(),
    "ncnn": FusedForm(min_group_channels=None, min_group_channels_int8=None),
    "torch": FusedForm(min_group_channels=None, min_group_channels_int8=None, inplace=True),
}
