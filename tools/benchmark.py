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

    training = kinds.add_parser(
        "train", parents=[common], help="a training step, against mmdet's on timm's networks"
    )
    training.add_argument("--size", type=positive, default=320, help="pixels (default: 320)")
    training.add_argument("--batch", type=positive, default=8, help="pictures (default: 8)")
    training.add_argument("--amp", action="store_true", help="both in mixed precision")

    testing = kinds.add_parser(
        "eval", parents=[common], help="testing, against mmdet's; both backends of the metric"
    )
    testing.add_argument("--data-root", required=True, help="pictures in COCO's layout")
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
    from mixdet.analysis.machine import describe

    if args.kind == "input":
        from mixdet.analysis.benchmark.input import input_table as table
        from mixdet.analysis.benchmark.input import measure_input

        record = measure_input(args.data_root, rounds=args.rounds, pictures=args.pictures)
    elif args.kind == "train":
        from mixdet.analysis.benchmark.train import measure_train
        from mixdet.analysis.benchmark.train import train_table as table

        record = measure_train(args.rounds, args.size, args.batch, args.amp)
    else:
        from mixdet.analysis.benchmark.eval import eval_table as table
        from mixdet.analysis.benchmark.eval import measure_eval

        record = measure_eval(args.data_root, args.rounds)
    if out:
        out.write_text(json.dumps(record, indent=2) + "\n")
    print(describe(record["machine"]), table(record, args.markdown), sep="\n\n")


if __name__ == "__main__":
    run_tool(main)
