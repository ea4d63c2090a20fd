"""Analyze a detector's errors: python tools/analyze_errors.py CONFIG DETECTIONS.json"""

from __future__ import annotations

import argparse
from pathlib import Path

from mixdet.errors import MixDetError, run_tool

SPLITS = ("val", "test")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Analyze the errors of a detector from the detections that tools/test.py "
        "writes: confusion matrix, precision, recall and F1 over the score threshold, the best "
        "threshold of each class, errors by size and kind, and the images with most errors."
    )
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("detections", metavar="DETECTIONS", help="COCO results (JSON)")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="folder for errors.html and errors.json (default: that of the detections)",
    )
    parser.add_argument(
        "--split",
        choices=SPLITS,
        help="the images of the detections: the config's validation or test set (default: by the "
        "name of the file, val_... or test_...)",
    )
    parser.add_argument(
        "--score-thr",
        type=float,
        metavar="SCORE",
        help="score threshold (default: the one with the highest F1 over all classes)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=12,
        help="number of images on the page, those with most errors; 0 needs no image files "
        "(default: %(default)s)",
    )
    parser.add_argument("--data-root", help="another folder for the data, in the same layout")
    parser.add_argument(
        "--cfg-options", nargs="+", default=(), metavar="KEY=VALUE", help="override the config"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.images < 0:
        raise MixDetError("--images must be 0 or more")
    if not Path(args.detections).is_file():
        raise MixDetError(
            f"{args.detections}: no such file: give the detections that tools/test.py writes, "
            "test_detections.json in the work folder"
        )
    split = args.split or _split_of(args.detections)
    # These imports load torch and mmdet, which --help does not need.
    from mixdet.error_analysis import analyze_config, errors_as_text, write_error_files
    from mixdet.outputs import writable_folder

    folder = writable_folder("--out", args.out or Path(args.detections).parent)
    errors, image_files = analyze_config(
        args.config,
        args.detections,
        split=split,
        score_thr=args.score_thr,
        data_root=args.data_root,
        cfg_options=args.cfg_options,
    )
    print(f"scored against {errors.scored.ann_file} (--split {split})\n\n{errors_as_text(errors)}")
    title = f"Errors of {Path(args.config).stem}"
    page = write_error_files(errors, folder / "errors.html", title, image_files, args.images)
    print(f"\nerror analysis: {page}")


def _split_of(detections: str) -> str:
    """Return the split that the name of a file of detections begins with."""
    split, _, rest = Path(detections).name.partition("_")
    if split not in SPLITS or not rest:
        raise MixDetError(
            f"{detections}: the name begins with neither val_ nor test_, so the images are not "
            "known: give --split val or --split test"
        )
    return split


if __name__ == "__main__":
    run_tool(main)
