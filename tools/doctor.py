"""Check the installed packages, the devices and the data, and print what is wrong.

The exit code is 0 without problems, otherwise 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # for a MixDet that is not installed

from mixdet import doctor
from mixdet.errors import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--online", action="store_true", help="check that timm's ImageNet weights can be downloaded"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    checks = doctor.examine(online=args.online)
    if args.json:
        report = {"works": doctor.works(checks), "checks": [asdict(check) for check in checks]}
        print(json.dumps(report, indent=2))
    else:
        print(doctor.to_text(checks))
    return 0 if doctor.works(checks) else 1


if __name__ == "__main__":
    run_tool(main)
