"""Modules can be imported in any order. Each order is tested in a new process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT


def run(code: str) -> None:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_importing_mixdet_and_compat_imports_no_large_package() -> None:
    run("""
import sys
import mixdet, mixdet.compat
heavy = {'torch', 'numpy', 'mmcv', 'mmdet', 'mmengine', 'mixdet.models', 'mixdet.compat.checkpoint'}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
""")


@pytest.mark.heavy
def test_mmdet_imports_after_prepare_and_our_models_are_not_imported() -> None:
    run("""
import sys
from mixdet import compat
compat.prepare()
import mmcv.ops, mmdet.models, mmdet.apis
from mmcv.ops import nms
compat.prepare()
assert mmcv.ops.nms is nms
assert 'mixdet.compat.checkpoint' in sys.modules
assert not {'mixdet.models', 'mixdet.engine', 'mixdet.datasets'} & set(sys.modules)
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
def test_any_module_may_be_imported_first(module) -> None:
    run(f"import {module}")
