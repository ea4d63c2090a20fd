"""mmengine and mmcv work on a Python without `pkgutil.find_loader`, such as 3.14."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from mixdet.compat.pkgutil_loader import find_loader
from tests.conftest import ROOT

needs_original = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="Python 3.14 has no find_loader to compare with"
)


@needs_original
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["json", "json.decoder", "math", "mmcv", "no_such_module"])
def test_find_loader_returns_the_same_kind_of_loader_as_pkgutil(name):
    assert type(find_loader(name)) is type(pkgutil.find_loader(name))


@needs_original
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_impossible_name_raises_the_same_error():
    for function in (find_loader, pkgutil.find_loader):
        with pytest.raises(ImportError):
            function("no_such_module.part")


@pytest.mark.heavy
def test_a_detector_is_built_without_pkgutil_find_loader():
    code = """
import pkgutil
if hasattr(pkgutil, 'find_loader'):
    del pkgutil.find_loader
from mixdet import doctor
checks = {check.name: check for check in doctor.examine()}
assert checks['MixNet-S'].level == 'ok', checks['MixNet-S']
from mmengine.utils.dl_utils import mmcv_full_available
from mmcv.utils.ext_loader import check_ops_exist
assert not mmcv_full_available()
assert not check_ops_exist()
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
