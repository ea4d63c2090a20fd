"""Draw the boxes of one or two detectors on a web page, which only this machine can open."""

from __future__ import annotations

import argparse

from mixdet.errors import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a trained detector (.pth), or an exported folder")
    parser.add_argument("model2", nargs="?", help="a second detector, shown beside the first one")
    parser.add_argument(
        "--port", type=int, default=7860, help="0 takes any free port (default: %(default)s)"
    )
    parser.add_argument(
        "--runtime",
        metavar="NAME",
        help="runtime for exported folders: onnx, openvino, ncnn, litert or executorch "
        "(default: the first of these that has a file in the folder and is installed)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: the runtime chooses)"
    )
    args = parser.parse_args()
    from mixdet.demo import serve  # loads the detectors' packages, which --help does not need

    models = [model for model in (args.model, args.model2) if model]
    serve(models, args.port, args.threads, args.runtime)


if __name__ == "__main__":
    run_tool(main)
