"""Write a config for a folder of labeled images: tools/init.py DATA [--out NAME.py]."""

from __future__ import annotations

import argparse
import shlex
import sys

from mixdet.errors import run_tool
from mixdet.image_size import add_size_option


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Read labeled images in the format of COCO, YOLO or VOC, check them, and write "
        "a config to train on them. Images are neither copied nor changed. The exit code is 1 if "
        "the check finds an error."
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="folder that an annotation tool exported, or the COCO file, data.yaml or classes.txt "
        "in the folder",
    )
    parser.add_argument(
        "--format",
        choices=("auto", "coco", "yolo", "voc"),
        default="auto",
        help="format of the annotations (default: %(default)s)",
    )
    parser.add_argument(
        "--out", metavar="NAME.py", help="file for the config (default: named after the folder)"
    )
    parser.add_argument(
        "--data-out",
        metavar="FOLDER",
        help="folder for COCO files, if they have to be written (default: NAME_annotations)",
    )
    parser.add_argument(
        "--first-pixel",
        type=int,
        choices=(0, 1),
        help="for VOC: 1 if pixels are counted from 1 and boxes include their last pixel, as VOC "
        "defines; 0 if coordinates are continuous from 0 (default: 0 if a coordinate of the data "
        "shows this, or else 1)",
    )
    parser.add_argument(
        "--skip-images-without-boxes",
        action="store_true",
        help="leave images without boxes out of the training; by default, a detector learns from "
        "them what background is",
    )
    add_size_option(parser)
    parser.add_argument("--force", action="store_true", help="replace existing files")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    # This import loads torch and mmdet, which --help does not need.
    from mixdet.own_data import write_own_config

    own = write_own_config(
        args.data,
        args.out,
        data_format=args.format,
        data_out=args.data_out,
        first_pixel=args.first_pixel,
        skip_empty=args.skip_images_without_boxes,
        size=args.size,
        force=args.force,
    )
    print("\n".join(own.lines))
    print(f"\n{own.report.text()}\n")
    for file in (*own.annotations, own.config):
        print(f"wrote {file}")
    command = "mixdet {}" if sys.argv[0].startswith("mixdet ") else "python tools/{}.py"
    print("next:")
    for tool in ("check_data", "train"):
        print(f"  {command.format(tool)} {shlex.quote(str(own.config))}")
    return 1 if own.report.has_errors else 0


if __name__ == "__main__":
    run_tool(main)
