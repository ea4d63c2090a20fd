"""Print the versions, the devices and the data that MixDet finds here, and what is wrong.

Exits with 0 when nothing prevents work, otherwise with 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # a doctor comes before the installation

from mixdet import doctor
from mixdet.errors import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--online", action="store_true", help="also ask for timm's ImageNet weights"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
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
