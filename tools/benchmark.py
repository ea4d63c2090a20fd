"""Time MixDet against its peers: run `python -m benchmarks` of the checkout."""

from __future__ import annotations

import sys
from pathlib import Path

from mixdet.errors import run_tool

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the folder of `benchmarks`


def main() -> None:
    from benchmarks.__main__ import main as run

    run()


if __name__ == "__main__":
    run_tool(main)
