"""One run in a process of its own: `python -m mixdet.comparison.worker ARGUMENTS`.

ARGUMENTS is a JSON object: the arguments of `mixdet.launch.train`.
"""

from __future__ import annotations

import json
import sys

from mixdet.errors import run_tool


def main() -> None:
    """Train."""
    from mixdet.launch import train

    train(**json.loads(sys.argv[1]))


if __name__ == "__main__":
    run_tool(main)
