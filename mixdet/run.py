"""Run a script of mmdet on an mmcv without compiled operators.

    python -m mixdet.run [--trust-checkpoint] SCRIPT [ARGS ...]

On such an mmcv, a script that imports `mmdet.apis` or `mmcv.ops` at its top, such as mmdet's
`tools/test.py`, fails before it reads a config. This module applies the fixes of `mixdet.compat` to
mmdet, then runs the script as if it had been started directly. MixDet's models are registered by
the config's `custom_imports`, as always. Processes that the script forks have the fixes too.
Processes that it spawns do not.

On several GPUs: `torchrun --nproc_per_node 8 -m mixdet.run SCRIPT ... --launcher pytorch`.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from mixdet.errors import MixDetError, run_tool


def main(argv: Sequence[str] | None = None) -> None:
    """Apply the fixes to mmdet, then run the script of the command line as `__main__`.

    Raises:
        MixDetError: The script is missing, or the script raised this error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mixdet.run", description="Run a script of mmdet without a compiled mmcv."
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints with pickled objects, which can run any code: use this only for "
        "files from a source that you trust",
    )
    parser.add_argument("script", type=Path, help="path of the script")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="arguments of the script")
    options = parser.parse_args(argv)
    if not options.script.is_file():
        raise MixDetError(f"{options.script}: no such script")

    # These imports load torch, which --help and a missing script do not need.
    from mixdet import compat
    from mixdet.compat.checkpoint import trust_checkpoints

    compat.prepare()
    if options.trust_checkpoint:
        trust_checkpoints()
    sys.argv = [str(options.script), *options.args]
    # `python -m` puts the working directory first, but `python SCRIPT` puts the script's folder
    # first. `python -P` adds neither folder.
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = str(options.script.resolve().parent)
    runpy.run_path(str(options.script), run_name="__main__")


if __name__ == "__main__":
    run_tool(main)
