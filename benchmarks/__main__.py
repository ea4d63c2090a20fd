"""The command line of the benchmarks, such as `python -m benchmarks train`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mixdet.errors import run_tool
from mixdet.outputs import writable_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time MixDet against its peers, in turns on this machine. Figures are medians "
        "of the rounds, with the lowest and the highest in brackets.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--rounds", type=positive, default=5, help="timed rounds (default: 5)")
    common.add_argument(
        "--out", metavar="FILE", help="write the record as JSON, and its plot beside it"
    )
    common.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    coco = argparse.ArgumentParser(add_help=False)
    coco.add_argument("--data-root", required=True, help="a folder in COCO's layout")

    command = commands.add_parser(
        "input", parents=[common, coco], help="the training pipeline against mmdet's"
    )
    command.add_argument("--images", type=positive, help="read only the first IMAGES images")

    command = commands.add_parser(
        "train", parents=[common], help="a training step against mmdet's on timm's networks"
    )
    command.add_argument("--batch", type=positive, help="images per step (default: 8)")
    command.add_argument("--amp", action="store_true", help="mixed precision on both sides")
    command.add_argument("--threads", nargs="+", type=positive, help="default: 1 2")
    command.add_argument("--networks", nargs="+", metavar="NAME", help="such as MixNet-S")
    command.add_argument(
        "--forms",
        nargs="+",
        metavar="FORM",
        help="forms of MixDet's step: eager (default), 'CUDA graph', compiled",
    )

    command = commands.add_parser(
        "feed",
        parents=[common, coco],
        help="training from a data loader against mmdet's: how long it waits for images",
    )
    command.add_argument("--workers", nargs="+", type=positive, help="default: one per core")
    command.add_argument("--network", metavar="NAME", help="default: MixNet-S")

    command = commands.add_parser(
        "gloo", parents=[common], help="two training processes on this CPU against one"
    )
    command.add_argument("--networks", nargs="+", metavar="NAME", help="such as MixNet-S")

    command = commands.add_parser(
        "eval", parents=[common, coco], help="testing against mmdet's, and the metric's backends"
    )
    command.add_argument(
        "--trained",
        nargs=2,
        action="append",
        metavar=("CONFIG", "CHECKPOINT"),
        help="test this detector too, on the data of its config",
    )
    command.add_argument(
        "--networks", nargs="*", metavar="NAME", help="on COCO's images, such as MixNet-S"
    )
    command.add_argument(
        "--backends",
        nargs="+",
        metavar="NAME",
        help="of MixDet's metric: pycocotools (default), faster_coco_eval",
    )
    command.add_argument(
        "--times", type=positive, help="test COCO's images so many times over (default: 1)"
    )

    command = commands.add_parser(
        "infer", parents=[common], help="from images to boxes, on every installed runtime"
    )
    command.add_argument("--network", metavar="NAME", help="default: MixNet-M")
    command.add_argument(
        "--batch", nargs="+", type=positive, dest="batches", help="images at a time (default: 1 8)"
    )
    command.add_argument("--threads", nargs="+", type=positive, help="default: 1 2")
    command.add_argument(
        "--without", nargs="+", metavar="WORD", help="leave out forms that have one of these words"
    )
    command.add_argument(
        "--folders",
        nargs="+",
        metavar="FOLDER",
        help="also time these exported folders of kind raw, and plot their mAP",
    )

    commands.add_parser(
        "fuse", parents=[common], help="MixConv as trained, padded and fused, on two runtimes"
    )
    commands.add_parser(
        "grow", parents=[common], help="cost by resolution, batch and kernels, and what bounds it"
    )
    commands.add_parser("start", parents=[common], help="how long a tool takes to start")

    command = commands.add_parser("report", help="print or insert the tables of records")
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="written by --out")
    command.add_argument("--page", type=Path, help="insert the tables into this Markdown file")
    return parser.parse_args()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> None:
    args = vars(parse_args())
    command = args.pop("command")
    if command == "report":
        report(**args)
        return
    out, markdown = args.pop("out"), args.pop("markdown")
    out = writable_file("--out", out) if out else None
    from benchmarks.records import module_of, record_table, write_plot  # slow: torch and mmdet

    # options have the names of the parameters of `measure`, which has the defaults
    options = {name: value for name, value in args.items() if value is not None}
    record = module_of(command).measure(**options)
    if out:
        out.write_text(json.dumps(record, indent=2) + "\n")
        write_plot(record, out)
    print(record_table(record, markdown))


def report(files: list[Path], page: Path | None) -> None:
    """Print the tables of records as Markdown, or insert them into a page."""
    from benchmarks.pages import update_page  # slow
    from benchmarks.records import read_record, record_table

    if page is None:
        print(*(record_table(read_record(file), markdown=True) for file in files), sep="\n\n")
        return
    for name in update_page(page, files):
        print(f"{page} has no place for {name}")


if __name__ == "__main__":
    run_tool(main)
