"""Make the digit scenes, the data set that MixDet contains: tools/make_digit_scenes.py [FOLDER]."""

from __future__ import annotations

import argparse

from mixdet.errors import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make the digit scenes. Training also makes them if they are missing.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("root", nargs="?", default="data/digit_scenes", help="folder to write")
    parser.add_argument("--train", type=int, default=2000, help="number of training images")
    parser.add_argument("--val", type=int, default=400, help="number of validation images")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same images")
    args = parser.parse_args()
    # This import loads OpenCV, which --help does not need.
    from mixdet.digit_scenes.files import make_digit_scenes

    folder = make_digit_scenes(args.root, train=args.train, val=args.val, seed=args.seed)
    print(f"digit scenes are in {folder}")


if __name__ == "__main__":
    run_tool(main)
