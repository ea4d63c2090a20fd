"""Compare configs over several seeds: python tools/compare.py CONFIG..."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from mixdet.errors import MixDetError, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train each config with each seed, then report means, standard deviations and "
        "differences. Repeat the command to resume an interrupted run. Finished runs are kept."
    )
    parser.add_argument(
        "configs", nargs="*", metavar="CONFIG", help="the first config is the baseline"
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="number of seeds, counted from 0 (default: 5)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("work_dirs/comparison"),
        help="folder for the runs and the report (default: %(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=0,
        help="number of runs at the same time (default: one per GPU, or one without a GPU)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="train each config for as many epochs as fit into this number of minutes, validation "
        "included, instead of train_cfg.max_epochs; the speed of each config is measured once, "
        "before the first run",
    )
    parser.add_argument("--data-root", help="another folder for the data, in the same layout")
    parser.add_argument(
        "--cfg-options", nargs="+", default=(), metavar="KEY=VALUE", help="override all configs"
    )
    parser.add_argument(
        "--report", action="store_true", help="do not train, only write the report in --out again"
    )
    parser.add_argument(
        "--join",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="folders of comparisons of the same configs on several data sets: do not train, only "
        "write one report about all of them to --out",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=6,
        help="number of validation images in report.html; 0 embeds none (default: 6)",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not (args.report or args.join or args.configs):
        raise MixDetError("name the configs to compare, or give --report to write a report again")
    if args.join and (args.configs or args.report):
        raise MixDetError("--join reads finished comparisons: leave the configs and --report out")
    if args.seeds < 1 or args.processes < 0 or args.images < 0:
        raise MixDetError("--seeds must be 1 or more, and --processes and --images 0 or more")
    # This import loads torch and mmdet, which --help does not need.
    from mixdet.comparison import (
        Comparison,
        Plan,
        train_all,
        write_joined_report,
        write_report,
    )
    from mixdet.engine.training_length import check_minutes

    command = shlex.join(["python", *sys.argv])
    if args.join:
        print(write_joined_report(args.join, args.out, command))
        print(f"report: {args.out / 'report.html'}")
        return
    if args.minutes is not None:
        check_minutes(args.minutes, args.cfg_options)
    if args.report:
        comparison = Comparison.read(args.out)
    else:
        plan = Plan(
            tuple(args.configs),
            tuple(range(args.seeds)),
            tuple(args.cfg_options),
            args.data_root,
            command,
            args.minutes,
        )
        comparison = train_all(plan, args.out, args.processes)
    print(write_report(comparison, args.images))
    print(f"report: {args.out / 'report.html'}")


if __name__ == "__main__":
    run_tool(main)
