"""Time MixDet against its peers, in turns: tools/benchmark.py input --data-root DIR."""

from __future__ import annotations

import argparse
import json

from mixdet.errors import run_tool
from mixdet.outputs import writable_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Time MixDet against what one would run otherwise, in turns on this machine. "
        "Figures are medians of the rounds, with the lowest and the highest in brackets."
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--rounds", type=positive, default=5, help="timed rounds (default: 5)")
    common.add_argument("--out", metavar="FILE", help="also write the figures as JSON")
    common.add_argument("--markdown", action="store_true", help="print the tables as Markdown")

    pipeline = kinds.add_parser(
        "input", parents=[common], help="the training pipeline, against mmdet's"
    )
    pipeline.add_argument("--data-root", required=True, help="pictures in COCO's layout")
    pipeline.add_argument("--pictures", type=positive, help="only the first so many")
    return parser.parse_args()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> None:
    args = parse_args()
    out = writable_file("--out", args.out) if args.out else None
    # heavy: torch and mmdet
    from mixdet.analysis.benchmark.input import input_table, measure_input
    from mixdet.analysis.benchmark.machine import describe

    record = measure_input(args.data_root, rounds=args.rounds, pictures=args.pictures)
    if out:
        out.write_text(json.dumps(record, indent=2) + "\n")
    print(describe(record["machine"]), input_table(record, args.markdown), sep="\n\n")


if __name__ == "__main__":
    run_tool(main)
