"""Configs of installed packages are found without `pkg_resources`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import mixdet.compat.prepared

import mmcv
import mmdet
import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from mixdet.compat import package_paths

SSDLITE = "ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py"


@pytest.mark.parametrize(
    ("name", "module"), [("mmdet", mmdet), ("mmcv", mmcv), ("mmcv-lite", mmcv)]
)
def test_a_package_is_found_by_the_name_of_its_module_or_distribution(name, module):
    assert package_paths.is_installed(name)
    assert package_paths.get_installed_path(name) == str(Path(module.__file__).parent)


def test_missing_and_namespace_packages_are_refused(tmp_path, monkeypatch):
    assert not package_paths.is_installed("no-such-package")
    with pytest.raises(PackageNotFoundError, match="no-such-package"):
        package_paths.get_installed_path("no-such-package")
    (tmp_path / "a_namespace").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="a_namespace is a namespace package"):
        package_paths.get_installed_path("a_namespace")


def test_a_config_inherits_from_a_config_of_mmdet(tmp_path):
    (tmp_path / "child.py").write_text(f"_base_ = 'mmdet::{SSDLITE}'\nmodel = dict(init_cfg=None)")
    child = Config.fromfile(tmp_path / "child.py")
    base = Path(mmdet.__file__).parent / ".mim/configs" / SSDLITE
    assert child.model.bbox_head == Config.fromfile(base).model.bbox_head
    assert get_config(f"mmdet::{SSDLITE}").model.neck == child.model.neck
