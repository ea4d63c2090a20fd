"""Time MixDet and the programs that it is compared with: this runs `python -m benchmarks`."""

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
