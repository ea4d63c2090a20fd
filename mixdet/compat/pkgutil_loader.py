"""Give `pkgutil` the function `find_loader`, if Python no longer has it.

The fault: Python 3.14 removed `pkgutil.find_loader`. mmengine 0.10.7 and mmcv 2.1.0 call it to ask
whether mmcv is compiled. Both fail with "module 'pkgutil' has no attribute 'find_loader'".

The fix: the function is added, and does what Python 3.13 documents. If it exists, it is kept.

This module can be removed when mmengine and mmcv no longer call the function.
"""

from __future__ import annotations

import pkgutil
from importlib.abc import Loader
from importlib.util import find_spec


def find_loader(fullname: str) -> Loader | None:
    """Return the loader of a module, or None if there is no such module or it has no loader."""
    try:
        spec = find_spec(fullname)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ImportError(f"cannot search for the module {fullname!r}: {error}") from error
    return spec and spec.loader


def install() -> None:
    """Add the function to `pkgutil` where it is missing."""
    if not hasattr(pkgutil, "find_loader"):
        pkgutil.find_loader = find_loader
