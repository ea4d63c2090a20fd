"""From a trained detector to files that other runtimes load.

`export` writes a folder, and `mixdet.inference.Detector` runs it. `verify` compares the folder with
the checkpoint's detections, which `detect_reference` returns. `RawNetwork` is the network that is
exported, and `fuse` rewrites any of our networks for inference.
"""

import mixdet.plugin

from mixdet.deploy.exporter import export
from mixdet.deploy.fuse import fuse
from mixdet.deploy.raw_network import RawNetwork
from mixdet.deploy.verification import (
    ReferenceDetections,
    VerificationReport,
    detect_reference,
    verify,
)

__all__ = [
    "RawNetwork",
    "ReferenceDetections",
    "VerificationReport",
    "detect_reference",
    "export",
    "fuse",
    "verify",
]
