"""Networks of kind raw for phones: ncnn by pnnx, LiteRT, ExecuTorch for its backend XNNPACK."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from mixdet.deploy.network import RawNetwork
from mixdet.errors import MixDetError
from mixdet.inference.runtimes import FILES


class _One(nn.Module):
    """A network for one image."""

    def __init__(self, network: RawNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.of_one(image)


class _Planes(_One):
    """ncnn has no uint8 tensors: what `ncnn::Mat::from_pixels_resize` makes goes in."""

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.of_planes(planes)


def save_ncnn(network: RawNetwork, folder: Path, half: bool) -> None:
    """Write `model.ncnn.param` and `model.ncnn.bin`.

    The input is `in0`, (3, H, W) float in 0..255; the outputs are `out0`, boxes (A, 4), and `out1`,
    scores (A, classes).

    Args:
        network: The network.
        folder: Where.
        half: Store the weights in float16.

    Raises:
        MixDetError: pnnx did not write them.
    """
    import pnnx

    width, height = network.size
    planes = torch.zeros(1, 3, height, width)
    with tempfile.TemporaryDirectory() as work:
        script = Path(work, "model.pt")
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(_Planes(network).eval(), planes, check_trace=False).save(script)
        # The program itself: pnnx.convert imports Python that it wrote
        shape = f"inputshape=[1,3,{height},{width}]f32"
        command = [pnnx.EXEC_PATH, script, shape, f"fp16={int(half)}"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True)
        for name in FILES["ncnn"]:
            if not Path(work, name).is_file():
                said = " ".join(done.stderr.split())[-300:]
                raise MixDetError(f"--to ncnn: pnnx wrote no {name}: {said}")
            shutil.move(Path(work, name), folder / name)


def save_litert(network: RawNetwork, path: str | os.PathLike) -> None:
    """Write `model.tflite`; in- and outputs are those of `RawNetwork.of_one`."""
    import litert_torch

    litert_torch.convert(_plain(network), (_image(network),)).export(str(path))


def save_executorch(network: RawNetwork, path: str | os.PathLike) -> None:
    """Write `model.pte`; in- and outputs are those of `RawNetwork.of_one`."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with torch.no_grad():
        program = torch.export.export(_plain(network), (_image(network),))
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    Path(path).write_bytes(edge.to_executorch().buffer)


def _plain(network: RawNetwork) -> nn.Module:
    """With weights as NCHW: XNNPACK refuses others, and LiteRT's converter mixes them up.

    litert-torch 0.10 knows a constant by its address, which for the copy that it makes of a
    channels-last weight is the address of another's copy before.
    """
    return _One(network).eval().to(memory_format=torch.contiguous_format)


def _image(network: RawNetwork) -> Tensor:
    width, height = network.size
    return torch.zeros(1, height, width, 3, dtype=torch.uint8)
