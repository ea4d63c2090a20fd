"""Export a trained detector to files that run without torch, and compare them with PyTorch."""

from __future__ import annotations

import argparse

from mixdet.errors import run_tool
from mixdet.image_size import add_size_option

TARGETS = ("onnx", "openvino", "ncnn", "litert", "executorch", "coreml")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="path of the config")
    parser.add_argument("checkpoint", help="a trained detector (.pth)")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--to",
        nargs="+",
        default=["onnx"],
        choices=TARGETS,
        help="the runtimes to export for (default: onnx)",
    )
    parser.add_argument(
        "--kind",
        nargs="+",
        default=["raw"],
        choices=("raw", "end2end"),
        help="raw: the network ends before NMS, and takes one image at a time. end2end: the "
        "network includes NMS, and takes batches. With both kinds, the files go to DIR/raw and "
        "DIR/end2end (default: raw)",
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=("fp32", "fp16", "bf16", "int8"),
        help="fp16 is for onnx, openvino and ncnn; bf16 for openvino; int8 for onnx and openvino "
        "(default: fp32)",
    )
    parser.add_argument(
        "--calibration-images",
        type=int,
        default=300,
        metavar="N",
        help="number of training images for the int8 calibration (default: 300)",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        default=0.01,
        metavar="mAP",
        help="the export fails if fp16, bf16 or int8 loses more mAP than this (default: 0.01)",
    )
    add_size_option(parser)
    parser.add_argument("--data-root", help="another folder for the config's data")
    parser.add_argument(
        "--no-verify", action="store_true", help="do not compare with PyTorch on the test data"
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints that hold pickled objects: only from a source that you trust",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # This import loads torch and mmdet, which --help does not need.
    from mixdet.deploy import export

    folders = export(
        args.config,
        args.checkpoint,
        args.out,
        targets=list(dict.fromkeys(args.to)),
        kinds=list(dict.fromkeys(args.kind)),
        precision=args.precision,
        calibration_images=args.calibration_images,
        max_drop=args.max_drop,
        data_root=args.data_root,
        check=not args.no_verify,
        trust_checkpoint=args.trust_checkpoint,
        size=args.size,
    )
    print("written:", *folders)


if __name__ == "__main__":
    run_tool(main)
