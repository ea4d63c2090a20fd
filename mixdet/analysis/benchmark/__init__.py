"""Ours against what a user would otherwise run, in turns: behind tools/benchmark.py."""
