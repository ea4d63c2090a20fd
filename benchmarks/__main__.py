"""The command line of the benchmarks, such as `python -m benchmarks train`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.pages import BEGIN, END, update_page
from benchmarks.records import module_of, read_record, record_table, write_plot
from mixdet.errors import run_tool
from mixdet.outputs import writable_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time MixDet and other detectors in turns on this machine. Results are medians "
        "over the rounds. The lowest and the highest value are in parentheses.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--rounds", type=positive, default=5, help="timed rounds (default: 5)")
    common.add_argument(
        "--out", metavar="FILE", help="write the results as JSON, and a plot to the same folder"
    )
    common.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    coco = argparse.ArgumentParser(add_help=False)
    coco.add_argument("--data-root", required=True, help="a folder in COCO's layout")

    command = commands.add_parser(
        "input", parents=[common, coco], help="time the training pipeline against mmdet's"
    )
    command.add_argument("--images", type=positive, help="read only the first IMAGES images")

    command = commands.add_parser(
        "train", parents=[common], help="time a training step against mmdet's with timm's backbones"
    )
    command.add_argument("--batch", type=positive, help="images per step (default: 8)")
    command.add_argument(
        "--amp", action="store_true", help="train MixDet and mmdet in mixed precision"
    )
    add_threads(command)
    add_networks(command)
    command.add_argument(
        "--forms",
        nargs="+",
        metavar="FORM",
        help="forms of MixDet's step: eager (default), 'CUDA graph', compiled",
    )

    command = commands.add_parser(
        "feed",
        parents=[common, coco],
        help="time training on image files against mmdet, and how long training waits for images",
    )
    command.add_argument(
        "--workers",
        nargs="+",
        type=positive,
        help="numbers of data loader workers (default: one per core)",
    )
    command.add_argument("--network", metavar="NAME", help="backbone (default: MixNet-S)")

    command = commands.add_parser(
        "gloo", parents=[common], help="time two training processes on this CPU against one"
    )
    add_networks(command)

    command = commands.add_parser("eval", parents=[common, coco], help="time testing against mmdet")
    command.add_argument(
        "--trained",
        nargs=2,
        action="append",
        metavar=("CONFIG", "CHECKPOINT"),
        help="also test this detector on the data of its config",
    )
    add_networks(command, nargs="*")
    command.add_argument(
        "--backends",
        nargs="+",
        metavar="NAME",
        help="backends of MixDet's metric: pycocotools (default), hotcoco, faster_coco_eval",
    )
    command.add_argument(
        "--times", type=positive, help="how often a test repeats COCO's images (default: 1)"
    )

    command = commands.add_parser(
        "metric", parents=[common], help="time the backends of the COCO metric"
    )
    command.add_argument("--images", type=positive, help="number of images (default: 5000)")

    command = commands.add_parser(
        "infer", parents=[common], help="time detection on all installed runtimes"
    )
    command.add_argument("--network", metavar="NAME", help="backbone (default: MixNet-M)")
    command.add_argument(
        "--batch", nargs="+", type=positive, dest="batches", help="batch sizes (default: 1 8)"
    )
    add_threads(command)
    command.add_argument(
        "--without",
        nargs="+",
        metavar="WORD",
        help="leave out forms with one of these words in their name",
    )
    command.add_argument(
        "--folders",
        nargs="+",
        metavar="FOLDER",
        help="also time these folders (exported with --kind raw), and plot their mAP",
    )

    command = commands.add_parser(
        "predict",
        parents=[common],
        help="time tools/predict.py on a folder of images against another checkout",
    )
    command.add_argument(
        "--checkout", required=True, metavar="FOLDER", help="another checkout of MixDet"
    )
    command.add_argument("--images", type=positive, help="number of images (default: 500)")
    command.add_argument("--network", metavar="NAME", help="backbone (default: MixNet-M)")

    commands.add_parser(
        "fuse", parents=[common], help="time MixConv as trained, padded and fused on two runtimes"
    )
    commands.add_parser(
        "grow",
        parents=[common],
        help="time a detector with growing images, batches and kernels, and time its layers",
    )
    commands.add_parser("start", parents=[common], help="time the start of a tool")
    command = commands.add_parser(
        "detectors", help="try which detectors of mmdet train and detect with MixNet-S"
    )
    command.add_argument(
        "--only", nargs="+", metavar="NAME", help="folders of mmdet's configs (default: all)"
    )
    command.add_argument("--out", metavar="FILE", help="write the results as JSON")
    command.add_argument("--markdown", action="store_true", help="print the table as Markdown")

    command = commands.add_parser(
        "scale",
        parents=[common],
        help="measure the time and memory that annotations of COCO's size take",
    )
    command.add_argument(
        "--baseline", metavar="FOLDER", help="also measure this checkout of another version"
    )
    command.add_argument("--images", type=positive, help="number of images (default: 118287)")
    command.add_argument(
        "--annotations", type=positive, help="number of annotations (default: 860001)"
    )

    command = commands.add_parser("report", help="print the tables of records")
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="written by --out")
    command.add_argument(
        "--page", type=Path, help="insert the tables into this Markdown file, do not print them"
    )
    return parser.parse_args()


def add_threads(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--threads", nargs="+", type=positive, help="numbers of threads (default: 1 2)"
    )


def add_networks(command: argparse.ArgumentParser, nargs: str = "+") -> None:
    command.add_argument(
        "--networks", nargs=nargs, metavar="NAME", help="backbones, such as MixNet-S (default: all)"
    )


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
    # Each option has the name of a parameter of `measure`. An omitted option gets the parameter's
    # default.
    options = {name: value for name, value in args.items() if value is not None}
    record = module_of(command).measure(**options)
    if out:
        out.write_text(json.dumps(record, indent=2) + "\n")
        write_plot(record, out)
    print(record_table(record, markdown))


def report(files: list[Path], page: Path | None) -> None:
    """Print the tables of records as Markdown, or insert them into a page."""
    if page is None:
        print(*(record_table(read_record(file), markdown=True) for file in files), sep="\n\n")
        return
    for name in update_page(page, files):
        begin, end = BEGIN.format(name=name), END.format(name=name)
        print(f"{page} has no place for {name}: add the lines {begin} and {end}")


if __name__ == "__main__":
    run_tool(main)
