"""Serve a web page, to this machine only, that draws the boxes of one or two detectors."""

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
        "--threads", type=int, metavar="N", help="CPU threads (default: the runtime chooses)"
    )
    args = parser.parse_args()
    from mixdet.demo import serve  # loads the detectors' packages, which --help does not need

    serve([model for model in (args.model, args.model2) if model], args.port, args.threads)


if __name__ == "__main__":
    run_tool(main)
