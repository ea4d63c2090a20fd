"""Other depthwise kernels in one block at a time: tools/ablate.py CONFIG --blocks 2 5 9."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from mixdet.errors import MixDetError, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a MobileNet detector as it is, and with other depthwise kernels in one "
        "block at a time; report the change of each. Interrupted, the same command goes on."
    )
    parser.add_argument("config", metavar="CONFIG", help="with MixMobileNetV1 or V2")
    parser.add_argument("--blocks", type=int, nargs="+", required=True, help="counted from 1")
    parser.add_argument("--kernel-sizes", default="3,5,7", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on (default: 3)")
    parser.add_argument(
        "--out", type=Path, default=Path("work_dirs/ablation"), help="default: %(default)s"
    )
    parser.add_argument(
        "--processes", type=int, default=0, help="runs side by side (default: one a GPU, or one)"
    )
    parser.add_argument("--data-root", help="another folder in the same layout")
    parser.add_argument("--cfg-options", nargs="+", default=(), metavar="KEY=VALUE")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.seeds < 1 or args.processes < 0:
        raise MixDetError("--seeds must be 1 or more, --processes 0 or more")
    try:
        kernel_sizes = [int(size) for size in args.kernel_sizes.split(",")]
    except ValueError:
        raise MixDetError(f"--kernel-sizes {args.kernel_sizes}: give numbers, as 3,5,7") from None
    from mixdet.comparison.ablation import plan_ablation, report_ablation  # heavy: torch and mmdet
    from mixdet.comparison.folder import Plan
    from mixdet.comparison.report import report
    from mixdet.comparison.runs import train_all

    base = Plan(
        (args.config,),
        tuple(range(args.seeds)),
        tuple(args.cfg_options),
        args.data_root,
        shlex.join(["python", *sys.argv]),
    )
    plan = plan_ablation(base, args.blocks, kernel_sizes, args.out)
    comparison = train_all(plan, args.out, args.processes)
    print(report(comparison))
    print(report_ablation(comparison, args.blocks))
    print(f"report: {args.out / 'report.html'}, figure: {args.out / 'ablation.svg'}")


if __name__ == "__main__":
    run_tool(main)
