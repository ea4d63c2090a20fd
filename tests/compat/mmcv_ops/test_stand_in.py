"""The stand-in of `mmcv._ext` takes the place of missing operators only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mixdet.compat.prepared

import mmcv.ops
import pytest
import torch

from mixdet.compat import mmcv_ops
from mixdet.errors import MixDetError
from tests.conftest import ROOT

without_compiled_mmcv = pytest.mark.skipif(
    not isinstance(sys.modules.get("mmcv._ext"), mmcv_ops.StandIn), reason="mmcv is compiled"
)


@without_compiled_mmcv
def test_the_error_of_a_missing_operator_names_the_operator() -> None:
    boxes = torch.tensor([[4.0, 4.0, 2.0, 2.0, 0.0]])
    with pytest.raises(MixDetError, match=r"'box_iou_rotated'.*out of the config.*onedl-mmcv"):
        mmcv.ops.box_iou_rotated(boxes, boxes)
    assert not hasattr(sys.modules["mmcv._ext"], "__path__")


@without_compiled_mmcv
def test_the_environment_report_of_mmdet_runs() -> None:
    from mmdet.utils import collect_env

    assert collect_env()["MMDetection"]
    assert mmcv.ops.get_compiler_version() == mmcv.ops.get_compiling_cuda_version() != ""
    assert "mmcv-lite stand-in" in mmcv_ops.which_nms()


def test_the_operators_of_a_compiled_mmcv_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "_ext.py").write_text("nms = 'compiled'")
    code = f"""
import sys, mmcv
from mixdet.compat import mmcv_ops
mmcv.__path__.insert(0, {str(tmp_path)!r})
mmcv_ops.install()
import mmcv._ext
assert mmcv._ext.nms == 'compiled', mmcv._ext
assert mmcv_ops.which_nms() == 'compiled mmcv'
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
