"""Data sets: digit scenes, the embedded one, and what mmdet lacks for reading others."""
