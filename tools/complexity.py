"""Count parameters and multiply-adds: tools/complexity.py CONFIG... ."""

from __future__ import annotations

import argparse

from mixdet.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Parameters and multiply-adds (not FLOPs: a multiply and an add are one)."
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mixdet.analysis.complexity import complexity  # heavy: torch and mmdet

    print("| config | input | params (M) | MAdds (B) |")
    print("|---|---|---|---|")
    for config in args.configs:
        row = complexity(config)
        height, width = row.input_size
        print(
            f"| {row.name} | {height}x{width} | {row.params / 1e6:.3f} | {row.madds / 1e9:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    run_tool(main)
