"""Import orders, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(code: str) -> None:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_package_and_compat_load_nothing() -> None:
    run("""
import sys
import mixdet, mixdet.compat
heavy = {'torch', 'numpy', 'mmcv', 'mmdet', 'mmengine', 'mixdet.models', 'mixdet.compat.checkpoint'}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
""")


def test_prepare_comes_before_mmdet_and_never_loads_our_models() -> None:
    run("""
import sys
from mixdet import compat
compat.prepare()
import mmcv.ops, mmdet.models, mmdet.apis
from mmcv.ops import nms
compat.prepare()
assert mmcv.ops.nms is nms
ours = [name for name in sys.modules if name.startswith('mixdet.')]
assert all(name.startswith(('mixdet.compat', 'mixdet.errors')) for name in ours), ours
""")


@pytest.mark.heavy
@pytest.mark.parametrize(
    "module",
    [
        "mixdet.comparison.ablation",
        "benchmarks.testing",
        "mixdet.comparison.comparison_report",
        "mixdet.data_check",
        "mixdet.analysis.receptive_field",
        "mixdet.analysis.stages",
        "mixdet.datasets.safe_coco",
        "mixdet.datasets.transforms",
        "mixdet.deploy",
        "mixdet.launch",
        "mixdet.evaluation",
        "mixdet.models",
    ],
)
def test_anything_may_be_imported_first(module) -> None:
    run(f"import {module}")
