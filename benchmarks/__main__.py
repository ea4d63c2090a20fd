"""Time MixDet against its peers, in turns: python -m benchmarks input --data-root DIR."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mixdet.errors import run_tool
from mixdet.outputs import writable_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time MixDet against what one would run otherwise, in turns on this machine. "
        "Figures are medians of the rounds, with the lowest and the highest in brackets.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--rounds", type=positive, default=5, help="timed rounds (default: 5)")
    common.add_argument("--out", metavar="FILE", help="also write the figures as JSON, and a plot")
    common.add_argument("--markdown", action="store_true", help="print the tables as Markdown")

    pipeline = kinds.add_parser(
        "input", parents=[common], help="the training pipeline, against mmdet's"
    )
    pipeline.add_argument("--data-root", required=True, help="images in COCO's layout")
    pipeline.add_argument("--images", type=positive, help="only the first so many")

    training = kinds.add_parser(
        "train", parents=[common], help="a training step, against mmdet's on timm's networks"
    )
    training.add_argument("--size", type=positive, default=320, help="pixels (default: 320)")
    training.add_argument("--batch", type=positive, default=8, help="images (default: 8)")
    training.add_argument("--amp", action="store_true", help="both in mixed precision")
    training.add_argument("--threads", nargs="+", type=positive, default=[1, 2])
    training.add_argument("--networks", nargs="+", metavar="NAME", help="such as MixNet-S")
    training.add_argument(
        "--forms", nargs="+", default=["eager"], help="of ours: eager, 'CUDA graph', compiled"
    )

    feeding = kinds.add_parser(
        "feed", parents=[common], help="training from a data loader, against mmdet's: what waits"
    )
    feeding.add_argument("--data-root", required=True, help="images in COCO's layout")
    feeding.add_argument("--workers", nargs="+", type=positive, help="default: one a core")
    feeding.add_argument("--network", default="MixNet-S", help="default: MixNet-S")
    feeding.add_argument("--amp", action="store_true", help="all in mixed precision")
    feeding.add_argument("--images", type=positive, default=2400, help="of a round")
    feeding.add_argument("--batch", type=positive, default=24, help="images (default: 24)")

    processes = kinds.add_parser(
        "gloo", parents=[common], help="two training processes on this CPU, against one"
    )
    processes.add_argument("--size", type=positive, default=320, help="pixels (default: 320)")
    processes.add_argument("--batch", type=positive, default=8, help="of both (default: 8)")
    processes.add_argument("--networks", nargs="+", metavar="NAME", help="such as MixNet-S")

    testing = kinds.add_parser(
        "eval", parents=[common], help="testing, against mmdet's; both backends of the metric"
    )
    testing.add_argument("--data-root", required=True, help="images in COCO's layout")
    testing.add_argument(
        "--trained",
        nargs=2,
        action="append",
        default=[],
        metavar=("CONFIG", "CHECKPOINT"),
        help="test this detector too, on its own data",
    )
    testing.add_argument(
        "--networks", nargs="*", metavar="NAME", help="on COCO's images, such as MixNet-S"
    )
    testing.add_argument(
        "--score-thr", nargs="+", type=float, help="default: the paper's, 1e-8 and 0.001"
    )
    testing.add_argument(
        "--backends", nargs="+", help="of our metric: pycocotools (default), faster_coco_eval"
    )
    testing.add_argument(
        "--times", type=positive, default=1, help="test COCO's images so often, as if more"
    )
    testing.add_argument(
        "--images", type=positive, default=5000, help="of the metric's (default: 5000)"
    )

    inference = kinds.add_parser(
        "infer", parents=[common], help="images to boxes, on every runtime that is installed"
    )
    inference.add_argument("--network", default="MixNet-M", help="default: MixNet-M")
    inference.add_argument("--batch", nargs="+", type=positive, default=[1, 8])
    inference.add_argument("--threads", nargs="+", type=positive, default=[1, 2])
    inference.add_argument(
        "--without", nargs="+", default=[], help="forms to leave out, such as compiled"
    )
    inference.add_argument(
        "--folders",
        nargs="+",
        default=[],
        help="exported folders of kind raw besides; a second plot shows their mAP",
    )

    kinds.add_parser(
        "fuse", parents=[common], help="a MixConv split, padded and fused, on both runtimes"
    )

    kinds.add_parser(
        "grow", parents=[common], help="cost by resolution, batch and kernels; what bounds it"
    )

    kinds.add_parser("start", parents=[common], help="how long the tools take to start")

    report = kinds.add_parser("report", help="tables and plots of JSON that --out has written")
    report.add_argument("files", nargs="+", type=Path, metavar="FILE")
    report.add_argument("--page", type=Path, help="put the tables into this Markdown file")
    return parser.parse_args()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> None:
    args = parse_args()
    out = writable_file("--out", args.out) if getattr(args, "out", None) else None
    # heavy: torch and mmdet
    from benchmarks.report import read_record, renew, table, write_plot

    if args.kind == "report":
        if args.page:
            for name in renew(args.page, args.files):
                print(f"{args.page} has no place for {name}")
        else:
            print(*(table(read_record(file), markdown=True) for file in args.files), sep="\n\n")
        return
    record = measure(args)
    if out:
        out.write_text(json.dumps(record, indent=2) + "\n")
        write_plot(record, out)
    print(table(record, args.markdown))


def measure(args: argparse.Namespace) -> dict:
    if args.kind == "input":
        from benchmarks.input import measure_input

        return measure_input(args.data_root, rounds=args.rounds, images=args.images)
    if args.kind == "train":
        from benchmarks.train import NETWORKS, measure_train

        networks = args.networks or tuple(NETWORKS)
        return measure_train(
            *(args.rounds, args.size, args.batch, args.amp, args.threads, networks, args.forms)
        )
    if args.kind == "feed":
        from benchmarks.feed import measure_feed

        return measure_feed(
            *(args.data_root, args.rounds, args.workers, args.network, args.amp),
            *(args.images, args.batch),
        )
    if args.kind == "gloo":
        from benchmarks.gloo import NETWORKS, measure_gloo

        networks = args.networks or tuple(NETWORKS)
        return measure_gloo(args.rounds, networks, args.size, args.batch)
    if args.kind == "eval":
        from benchmarks.eval import BACKENDS, NETWORKS, THRESHOLDS, measure_eval

        networks = tuple(NETWORKS) if args.networks is None else args.networks
        thresholds = args.score_thr or THRESHOLDS
        return measure_eval(
            *(args.data_root, args.trained, args.rounds, args.images),
            *(networks, thresholds, args.times, args.backends or BACKENDS[:1]),
        )
    if args.kind == "infer":
        from benchmarks.infer import measure_infer

        return measure_infer(
            *(args.rounds, args.network, args.batch, args.threads, args.folders, args.without)
        )
    if args.kind == "fuse":
        from benchmarks.fuse import measure_fuse

        return measure_fuse(args.rounds)
    if args.kind == "grow":
        from benchmarks.grow import measure_grow

        return measure_grow(args.rounds)
    from benchmarks.start import measure_start

    return measure_start(args.rounds)


if __name__ == "__main__":
    run_tool(main)
