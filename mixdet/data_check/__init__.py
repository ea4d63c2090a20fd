"""Checks of the data of a config: classes, ids, boxes, image files.

`DataCheckHook` makes the quick check before every training and test. This check opens no image.
`tools/check_data.py` runs `full_check`, which also reads every image file and compares the boxes
with the model's anchors.
"""

import mixdet.compat.prepared

from mixdet.data_check.check_config_data import full_check, quick_check, quick_report
from mixdet.data_check.data_page import write_data_page
from mixdet.data_check.data_problems import Example, Problem
from mixdet.data_check.data_report import DataReport

__all__ = [
    "DataReport",
    "Example",
    "Problem",
    "full_check",
    "quick_check",
    "quick_report",
    "write_data_page",
]
