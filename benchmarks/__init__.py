"""Ours against what a user would otherwise run, in turns: `python -m benchmarks --help`."""
