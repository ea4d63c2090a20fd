"""Count parameters and multiply-adds: tools/complexity.py CONFIG... [--stages]."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mixdet.errors import run_tool

NOTE = "MAdds: a multiply and an add are one operation, half of what is often called FLOPs."


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Parameters and multiply-adds (not FLOPs: a multiply and an add are one), "
        "beside the MixConv paper's figures where it has any."
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG")
    parser.add_argument("--stages", action="store_true", help="each network stage by stage")
    parser.add_argument("--format", choices=["table", "markdown", "json"], default="table")
    parser.add_argument("--cfg-options", nargs="+", default=(), metavar="KEY=VALUE")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # heavy: torch and mmdet
    from mixdet.analysis.complexity import complexity, complexity_record, complexity_table
    from mixdet.analysis.stages import stages, stages_table

    markdown = args.format == "markdown"
    if args.stages:
        found = {Path(config).stem: stages(config, args.cfg_options) for config in args.configs}
        record = {name: [stage._asdict() for stage in rows] for name, rows in found.items()}
        texts = [f"{name}\n\n{stages_table(rows, markdown)}" for name, rows in found.items()]
    else:
        counts = [complexity(config, args.cfg_options) for config in args.configs]
        record = [complexity_record(row) for row in counts]
        texts = [complexity_table(counts, markdown)]
    print(json.dumps(record, indent=2) if args.format == "json" else "\n\n".join([*texts, NOTE]))


if __name__ == "__main__":
    run_tool(main)
