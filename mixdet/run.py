"""Run a script of mmdet's on an mmcv without compiled operators.

    python -m mixdet.run [--trust-checkpoint] SCRIPT [ARGS ...]

mmdet's `tools/test.py` and everything else that imports `mmdet.apis` or `mmcv.ops` at the top fails
there before it reads a config. This prepares mmdet first (`mixdet.compat`) and then runs the script
as if it had been started directly. Registering our models is left to the config's `custom_imports`,
as without this launcher. Processes that a script spawns (rather than forks) start unprepared.

Several GPUs: `torchrun --nproc_per_node 8 -m mixdet.run SCRIPT ... --launcher pytorch`.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from mixdet.errors import MixDetError, run_tool


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare mmdet, then run the script that the command line names as `__main__`.

    Raises:
        MixDetError: The script is missing, or raised this itself.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mixdet.run", description="Run a script of mmdet's without a compiled mmcv."
    )
    parser.add_argument(
        "--trust-checkpoint", action="store_true", help="run the code that a checkpoint may hold"
    )
    parser.add_argument("script", type=Path)
    parser.add_argument("args", nargs=argparse.REMAINDER, help="handed to the script")
    options = parser.parse_args(argv)
    if not options.script.is_file():
        raise MixDetError(f"{options.script}: no such script")

    from mixdet import compat
    from mixdet.compat.checkpoint import trust_checkpoints

    compat.prepare()
    if options.trust_checkpoint:
        trust_checkpoints()
    sys.argv = [str(options.script), *options.args]
    if not getattr(sys.flags, "safe_path", False):  # with `python -P` there is no such entry
        sys.path[0] = str(options.script.resolve().parent)  # was the working directory
    runpy.run_path(str(options.script), run_name="__main__")


if __name__ == "__main__":
    run_tool(main)
