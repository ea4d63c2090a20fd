"""Evaluate a checkpoint: tools/test.py CONFIG CHECKPOINT [options]."""

from __future__ import annotations

import argparse

from mixdet.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Evaluate a checkpoint on the config's test set.")
    parser.add_argument("config", help="path of the config")
    parser.add_argument("checkpoint", help="path or URL of the checkpoint")
    parser.add_argument("--out", metavar="JSON", help="write the detections as COCO results here")
    parser.add_argument("--sheet", metavar="JPG", help="draw true and predicted boxes here")
    parser.add_argument("--work-dir", help="log and results; default work_dirs/<config's name>")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    parser.add_argument("--data-root", help="another folder in the same layout")
    parser.add_argument("--cfg-options", nargs="+", default=(), metavar="KEY=VALUE")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints that hold pickled objects: only from a source that you trust",
    )
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    from mixdet import launch  # heavy: torch and mmdet

    launch.evaluate(args.pop("config"), args.pop("checkpoint"), **args)


if __name__ == "__main__":
    run_tool(main)
