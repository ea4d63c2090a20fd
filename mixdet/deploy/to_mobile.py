"""Write networks of the kind `raw` for phones: ncnn, LiteRT, and ExecuTorch with XNNPACK."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from mixdet.deploy.raw_network import RawNetwork
from mixdet.errors import MixDetError
from mixdet.inference.runtimes import RUNTIME_FILES


class _OneImageNetwork(nn.Module):
    """A module whose `forward` is `RawNetwork.forward_one_image`."""

    def __init__(self, network: RawNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.forward_one_image(image)


class _PlanesNetwork(_OneImageNetwork):
    """A module whose `forward` is `RawNetwork.forward_planes`, since ncnn has no uint8 tensors."""

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.forward_planes(planes)


def save_ncnn(network: RawNetwork, folder: Path, half: bool) -> None:
    """Write `model.ncnn.param` and `model.ncnn.bin`.

    The input is `in0`, (3, H, W) float in 0..255, as `ncnn::Mat::from_pixels_resize` makes it. The
    outputs are `out0`, boxes (A, 4), and `out1`, scores (A, classes).

    Args:
        network: The network.
        folder: The folder to write to.
        half: Whether to store the weights in float16.

    Raises:
        MixDetError: pnnx failed.
    """
    import pnnx

    width, height = network.input_wh
    planes = torch.zeros(1, 3, height, width)
    with tempfile.TemporaryDirectory() as work:
        script = Path(work, "model.pt")
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(_PlanesNetwork(network).eval(), planes, check_trace=False).save(script)
        # pnnx.convert is not used, because it writes Python code and imports this code.
        shape = f"inputshape=[1,3,{height},{width}]f32"
        command = [pnnx.EXEC_PATH, script, shape, f"fp16={int(half)}"]
        process = subprocess.run(command, cwd=work, capture_output=True, text=True)
        for name in RUNTIME_FILES["ncnn"]:
            if not Path(work, name).is_file():
                reason = " ".join(process.stderr.split())[-300:]
                raise MixDetError(f"--to ncnn: pnnx did not write {name}: {reason}")
            shutil.move(Path(work, name), folder / name)


def save_litert(network: RawNetwork, path: str | os.PathLike) -> None:
    """Write `model.tflite`, with the inputs and outputs of `RawNetwork.forward_one_image`."""
    import litert_torch

    litert_torch.convert(_one_image_network(network), (_example(network),)).export(str(path))


def save_executorch(network: RawNetwork, path: str | os.PathLike) -> None:
    """Write `model.pte`, with the inputs and outputs of `RawNetwork.forward_one_image`."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with torch.no_grad():
        program = torch.export.export(_one_image_network(network), (_example(network),))
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    Path(path).write_bytes(edge.to_executorch().buffer)


def _one_image_network(network: RawNetwork) -> nn.Module:
    """Return the network for one image, with weights in PyTorch's default memory format.

    XNNPACK refuses channels-last weights. The converter of LiteRT can confuse two of them:
    litert-torch 0.10 copies every channels-last weight, and identifies a constant by its address.
    A copy can get the address of an earlier copy that was freed.
    """
    return _OneImageNetwork(network).eval().to(memory_format=torch.contiguous_format)


def _example(network: RawNetwork) -> Tensor:
    width, height = network.input_wh
    return torch.zeros(1, height, width, 3, dtype=torch.uint8)
