"""Make the shape scenes, on which the start weights are trained: tools/make_shape_scenes.py."""

from __future__ import annotations

import argparse

from mixdet.errors import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make the shape scenes: invented objects on photographs, in COCO's layout.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("root", nargs="?", default="data/shape_scenes", help="folder to write")
    parser.add_argument("--train", type=int, default=8000, help="number of training images")
    parser.add_argument("--val", type=int, default=400, help="number of validation images")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same images")
    args = parser.parse_args()
    # This import loads OpenCV, which --help does not need.
    from mixdet.shape_scenes.files import make_shape_scenes

    folder = make_shape_scenes(args.root, train=args.train, val=args.val, seed=args.seed)
    print(f"shape scenes are in {folder}")


if __name__ == "__main__":
    run_tool(main)
