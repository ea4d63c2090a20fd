"""Do one training run in its own process: `python -m mixdet.comparison.run_worker ARGUMENTS`.

ARGUMENTS are the arguments of `mixdet.launch.train` as a JSON object.
"""

from __future__ import annotations

import json
import sys

from mixdet.errors import run_tool
from mixdet.launch import train


def main() -> None:
    """Train with the JSON arguments of the command line."""
    train(**json.loads(sys.argv[1]))


if __name__ == "__main__":
    run_tool(main)
