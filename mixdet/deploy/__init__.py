"""Export a trained detector to files that other runtimes load.

`export` writes a folder, and `mixdet.inference.Detector` runs it. `detect_reference` returns the
detections of the checkpoint, and `verify` compares the folder's detections with them. `RawNetwork`
is the network that is exported. `fuse` rewrites any network of MixDet for inference.
"""

import mixdet.plugin

from mixdet.deploy.exporter import export
from mixdet.deploy.raw_network import RawNetwork
from mixdet.deploy.verification import (
    ReferenceDetections,
    VerificationReport,
    detect_reference,
    verify,
)
from mixdet.models.fusing import fuse

__all__ = [
    "RawNetwork",
    "ReferenceDetections",
    "VerificationReport",
    "detect_reference",
    "export",
    "fuse",
    "verify",
]
