"""Check the data of a config: python tools/check_data.py CONFIG [--html FILE]."""

from __future__ import annotations

import argparse
import json

from mixdet.errors import run_tool
from mixdet.image_size import add_size_option


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Check the classes, ids, boxes and images of the training, validation and test "
        "data, and count the boxes that the model's anchors match. The exit code is 1 if there is "
        "an error or a warning. Ctrl-C ends the reading of images and reports what was found."
    )
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("--data-root", metavar="FOLDER", help="another folder for all data sets")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON")
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="write the report as a web page with example images of each problem",
    )
    parser.add_argument(
        "--workers",
        type=positive_number,
        metavar="N",
        help="threads that read images (default: one per processor core)",
    )
    add_size_option(parser)
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override the config"
    )
    return parser.parse_args()


def positive_number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give a whole number above 0")
    return number


def main() -> int:
    args = parse_args()
    # These imports load torch and mmdet, which --help does not need.
    from mixdet.config.data_paths import check_data
    from mixdet.config.read import load_config
    from mixdet.data_check import full_check, write_data_page
    from mixdet.outputs import writable_file

    cfg = load_config(args.config, args.cfg_options, data_root=args.data_root, size=args.size)
    loaders = tuple(f"{part}_dataloader" for part in ("train", "val", "test"))
    check_data(cfg, loaders)
    html_file = args.html and writable_file("--html", args.html)
    json_file = args.json and writable_file("--json", args.json)
    report = full_check(cfg, args.workers)
    print(report.text())
    if json_file:
        json_file.write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
    if html_file:
        write_data_page(report, html_file, f"Data of {args.config}")
    if report.unread_images:
        return 130  # the exit code of a program that Ctrl-C ended
    return 0 if report.ok else 1


if __name__ == "__main__":
    run_tool(main)
