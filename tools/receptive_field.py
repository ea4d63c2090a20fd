"""Draw effective receptive fields: python tools/receptive_field.py CONFIG CONFIG..."""

from __future__ import annotations

import argparse
from pathlib import Path

from mixdet.errors import MixDetError, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Draw the effective receptive fields of detectors side by side. They are the "
        "gradients of the center cell of a feature level with respect to the input, averaged over "
        "validation images."
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG")
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        metavar="FILE",
        help="trained weights, one file for each config (default: random weights)",
    )
    parser.add_argument(
        "--level",
        type=int,
        default=0,
        help="index of the feature level; 0 is the finest (default: 0)",
    )
    parser.add_argument(
        "--images", type=int, default=50, help="number of images to average over (default: 50)"
    )
    parser.add_argument("--data-root", help="another folder for the data, in the same layout")
    parser.add_argument("--seed", type=int, default=0, help="seed of random weights (default: 0)")
    parser.add_argument(
        "--out", default="receptive_field.svg", help="SVG file to write (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    checkpoints = args.checkpoints or [None] * len(args.configs)
    if len(checkpoints) != len(args.configs):
        raise MixDetError(
            f"--checkpoints: {len(checkpoints)} for {len(args.configs)} configs: "
            "name one checkpoint for each config"
        )
    if args.images < 1:
        raise MixDetError("--images must be 1 or more")
    if Path(args.out).suffix != ".svg":
        raise MixDetError(f"--out {args.out}: the figure is an SVG: give a name that ends in .svg")
    from mixdet.outputs import writable_file

    out = writable_file("--out", args.out)
    # These imports load torch and mmdet, which --help does not need.
    from mixdet.analysis.receptive_field import (
        measure_receptive_field,
        receptive_field_figure,
        receptive_field_table,
    )

    fields = [
        measure_receptive_field(
            config,
            checkpoint,
            level=args.level,
            images=args.images,
            data_root=args.data_root,
            seed=args.seed,
        )
        for config, checkpoint in zip(args.configs, checkpoints, strict=True)
    ]
    out.write_text(receptive_field_figure(fields), encoding="utf-8")
    print(receptive_field_table(fields))
    print(f"mean of {fields[0].images} images; figure: {out}")


if __name__ == "__main__":
    run_tool(main)
