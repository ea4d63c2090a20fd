"""A web page on this machine: drop an image or use the camera, see one or two detectors' boxes."""

from __future__ import annotations

import argparse

from mixdet.errors import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a trained detector (.pth), or an exported folder")
    parser.add_argument("model2", nargs="?", help="another, shown beside it")
    parser.add_argument("--port", type=int, default=7860, help="0: any (default: %(default)s)")
    args = parser.parse_args()
    from mixdet.demo.server import serve

    serve([model for model in (args.model, args.model2) if model], args.port)


if __name__ == "__main__":
    run_tool(main)
