"""Count parameters and multiply-adds: python tools/complexity.py CONFIG... [--stages]."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mixdet.errors import run_tool

NOTE = (
    "MAdds: a multiply and an add count as one operation. "
    "MAdds are half of what is often called FLOPs."
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Count parameters and multiply-adds (a multiply and an add count as one "
        "operation, unlike in FLOPs), and compare them with the figures of the MixConv paper."
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG")
    parser.add_argument("--stages", action="store_true", help="count each part of the network")
    parser.add_argument("--format", choices=["table", "markdown", "json"], default="table")
    parser.add_argument(
        "--cfg-options", nargs="+", default=(), metavar="KEY=VALUE", help="override the configs"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # These imports load torch and mmdet, which --help does not need.
    from mixdet.analysis.complexity import complexity_record, complexity_table, count_complexity
    from mixdet.analysis.stages import describe_stages, stages_table

    markdown = args.format == "markdown"
    if args.stages:
        stages = {Path(path).stem: describe_stages(path, args.cfg_options) for path in args.configs}
        record = {name: [stage._asdict() for stage in rows] for name, rows in stages.items()}
        texts = [f"{name}\n\n{stages_table(rows, markdown)}" for name, rows in stages.items()]
    else:
        counts = [count_complexity(path, args.cfg_options) for path in args.configs]
        record = [complexity_record(row) for row in counts]
        texts = [complexity_table(counts, markdown)]
    print(json.dumps(record, indent=2) if args.format == "json" else "\n\n".join([*texts, NOTE]))


if __name__ == "__main__":
    run_tool(main)
