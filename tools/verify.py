"""Compare an exported folder with its checkpoint on the test data: boxes, scores and mAP."""

from __future__ import annotations

import argparse
from pathlib import Path

from mixdet.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="the folder that tools/export.py wrote")
    parser.add_argument("config", help="path of the config")
    parser.add_argument("checkpoint", help="the checkpoint that was exported")
    parser.add_argument(
        "--runtime",
        help="onnx, openvino, ncnn, ... (default: every installed runtime that the folder has "
        "files for)",
    )
    parser.add_argument("--data-root", help="another folder for the config's test data")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints that hold pickled objects: only from a source that you trust",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # These imports load torch and mmdet, which --help does not need.
    from mixdet.deploy import detect_reference, verify
    from mixdet.inference.manifest import read_manifest, usable_runtimes
    from mixdet.inference.trained import TrainedNetwork

    folder = Path(args.folder)
    runtimes = usable_runtimes(folder, read_manifest(folder), args.runtime)
    trained = TrainedNetwork(args.checkpoint, args.config, "cpu", args.trust_checkpoint)
    reference = detect_reference(trained, args.data_root)
    reports = {runtime: verify(args.folder, reference, runtime) for runtime in runtimes}
    for runtime, report in reports.items():
        print(f"{args.folder}, {runtime}: {report}")
    for report in reports.values():
        report.require()


if __name__ == "__main__":
    run_tool(main)
