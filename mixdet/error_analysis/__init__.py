"""Error analysis of one detector: which objects it misses, and what its wrong detections are.

`tools/analyze_errors.py` analyzes the detections that `tools/test.py` writes. `ReportHook` writes
the same page after a test.
"""

import mixdet.compat.prepared

from mixdet.error_analysis.config_errors import analyze_config
from mixdet.error_analysis.detector_errors import DetectorErrors, analyze_errors
from mixdet.error_analysis.error_numbers import errors_as_dict
from mixdet.error_analysis.error_page import write_error_files
from mixdet.error_analysis.error_text import errors_as_text

__all__ = [
    "DetectorErrors",
    "analyze_config",
    "analyze_errors",
    "errors_as_dict",
    "errors_as_text",
    "write_error_files",
]
