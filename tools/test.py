"""Evaluate a checkpoint: tools/test.py CONFIG CHECKPOINT [options]."""

from __future__ import annotations

import argparse

from mixdet.errors import run_tool
from mixdet.image_size import add_size_option


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Evaluate a checkpoint on the config's test set.")
    parser.add_argument("config", help="path of the config, or name of a shipped config")
    parser.add_argument("checkpoint", help="path or URL of the checkpoint")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="file for the detections: x.pkl for mmdet's tools of analysis, any other name for "
        "COCO results (default: COCO results in the work folder)",
    )
    parser.add_argument(
        "--sheet",
        metavar="JPG",
        help="file for a drawing of true and predicted boxes (default: in the work folder)",
    )
    parser.add_argument(
        "--show-dir",
        metavar="FOLDER",
        help="draw every image with its true and its predicted boxes into this folder",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="detect in several versions of each image and merge their boxes: those of "
        "tta_pipeline in the config, or the image and its mirror image",
    )
    parser.add_argument(
        "--work-dir", help="folder for log and results (default: work_dirs/<name of the config>)"
    )
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm"),
        default="none",
        help="the launcher that started this process, if several processes work together "
        "(default: %(default)s)",
    )
    parser.add_argument("--data-root", help="another folder for the data, in the same layout")
    add_size_option(parser)
    parser.add_argument(
        "--cfg-options", nargs="+", default=(), metavar="KEY=VALUE", help="override the config"
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints with pickled objects: only from a source that you trust",
    )
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    from mixdet import launch  # here, since --help needs neither torch nor mmdet

    launch.evaluate(args.pop("config"), args.pop("checkpoint"), **args)


if __name__ == "__main__":
    run_tool(main)
