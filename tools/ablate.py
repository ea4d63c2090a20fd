"""Ablate depthwise kernels block by block: python tools/ablate.py CONFIG --blocks 2 5 9."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from mixdet.errors import MixDetError, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a MobileNet detector unchanged, and one variant for each given block. "
        "In the variant of a block, only that block has other depthwise kernels. Report the "
        "difference in mAP between each variant and the unchanged detector. The same command "
        "resumes an interrupted run."
    )
    parser.add_argument(
        "config", metavar="CONFIG", help="a config with MixMobileNetV1 or MixMobileNetV2"
    )
    parser.add_argument(
        "--blocks", type=int, nargs="+", required=True, help="numbers of blocks, counted from 1"
    )
    parser.add_argument(
        "--kernel-sizes",
        default="3,5,7",
        help="kernel sizes of the changed block (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="number of seeds, counted from 0 (default: 3)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("work_dirs/ablation"),
        help="folder for the runs and the report (default: %(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=0,
        help="number of runs at the same time (default: one per GPU, or one without a GPU)",
    )
    parser.add_argument("--data-root", help="another folder for the data, in the same layout")
    parser.add_argument(
        "--cfg-options", nargs="+", default=(), metavar="KEY=VALUE", help="override all configs"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.seeds < 1 or args.processes < 0:
        raise MixDetError("--seeds must be 1 or more, and --processes 0 or more")
    try:
        kernel_sizes = [int(size) for size in args.kernel_sizes.split(",")]
    except ValueError:
        raise MixDetError(
            f"--kernel-sizes {args.kernel_sizes}: give numbers with commas, such as 3,5,7"
        ) from None
    # This import loads torch and mmdet, which --help does not need.
    from mixdet.comparison import (
        Plan,
        plan_ablation,
        train_all,
        write_ablation_report,
        write_report,
    )

    unchanged = Plan(
        (args.config,),
        tuple(range(args.seeds)),
        tuple(args.cfg_options),
        args.data_root,
        shlex.join(["python", *sys.argv]),
    )
    plan = plan_ablation(unchanged, args.blocks, kernel_sizes, args.out)
    comparison = train_all(plan, args.out, args.processes)
    print(write_report(comparison))
    print(write_ablation_report(comparison, args.blocks))
    print(f"report: {args.out / 'report.html'}, figure: {args.out / 'ablation.svg'}")


if __name__ == "__main__":
    run_tool(main)
