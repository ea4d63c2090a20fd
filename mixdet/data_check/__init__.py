"""Checking a config's data before a detector learns from them: classes, ids, boxes, images.

`quick_check` reads the annotations alone and runs before every training (`DataCheckHook`);
`full_check`, what `tools/check_data.py` does, opens every image too.
"""

import mixdet.compat.prepared

from mixdet.data_check.check import full_check, quick_check
from mixdet.data_check.problems import Example, Problem
from mixdet.data_check.report import DataReport

__all__ = ["DataReport", "Example", "Problem", "full_check", "quick_check"]
