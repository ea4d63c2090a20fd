"""Let mmengine find installed packages without `pkg_resources`.

The fault: setuptools 81 and later have no `pkg_resources`. mmengine 0.10.7 imports it to find an
installed package. So a config with `_base_ = "mmdet::..."` and `mmengine.hub.get_config` fail with
"No module named 'pkg_resources'".

The fix: mmengine's functions that find packages are replaced by functions that use `importlib`. If
`pkg_resources` can be imported, nothing is changed.

This module can be removed when mmengine no longer imports `pkg_resources`.
"""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path


def is_installed(package: str) -> bool:
    """Tell whether a package is installed, or can be imported.

    Args:
        package: Name of a distribution, such as 'mmcv-lite', or of a module, such as 'mmcv'.
    """
    try:
        metadata.distribution(package)
        return True
    except metadata.PackageNotFoundError:
        spec = find_spec(package)
        return spec is not None and spec.origin is not None


def get_installed_path(package: str) -> str:
    """Return the folder of a package.

    Args:
        package: Name of a distribution, such as 'mmcv-lite', or of a module, such as 'mmcv'.

    Raises:
        importlib.metadata.PackageNotFoundError: The package is not installed.
        RuntimeError: The name belongs to several folders, as the name of a namespace package does.
    """
    spec = find_spec(package) or find_spec(package2module(package))
    if spec is None:
        raise metadata.PackageNotFoundError(package)
    if spec.origin is None:
        raise RuntimeError(f"{package} is a namespace package, which has no folder of its own")
    return str(Path(spec.origin).parent)


def package2module(package: str) -> str:
    """Return the first module of a distribution: 'mmcv' for 'mmcv-lite'.

    Raises:
        importlib.metadata.PackageNotFoundError: The distribution is not installed.
        ValueError: The distribution does not name its modules.
    """
    names = (metadata.distribution(package).read_text("top_level.txt") or "").split()
    if not names:
        raise ValueError(f"the distribution {package} does not say which modules it has")
    return names[0]


def install() -> None:
    """Replace mmengine's functions wherever mmengine has imported them."""
    if find_spec("pkg_resources") is not None:
        return
    from mmengine import hub, utils
    from mmengine.config import config
    from mmengine.utils import package_utils

    for function in (is_installed, get_installed_path, package2module):
        for module in (package_utils, utils, config, hub.hub):
            if hasattr(module, function.__name__):
                setattr(module, function.__name__, function)
