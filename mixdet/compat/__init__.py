"""Fixes that mmdet 3.3 needs on current torch.

Each module describes the fault that it fixes, and says when the module can be removed.

Importing this package changes nothing. `prepare()` applies the fixes. It has to run before anything
imports `mmdet.models`, `mmdet.apis` or `mmcv.ops`. Importing `mixdet.plugin`, as our configs do, or
starting a script with `python -m mixdet.run SCRIPT` runs `prepare()`.
"""

from __future__ import annotations


def prepare() -> None:
    """Apply every fix, in order. Calling it again changes nothing.

    Raises:
        ImportError: mmengine, mmcv or mmdet is not installed.
    """
    # Not at the top of the file, since these modules import torch and mmengine.
    from mixdet.compat import (
        checkpoint,
        image_orientation,
        inferencer,
        mmcv_ops,
        package_paths,
        pkgutil_loader,
        ssd_head,
    )

    pkgutil_loader.install()  # first: mmcv and mmengine call it when they are imported or used
    package_paths.install()
    mmcv_ops.install()  # mmdet.models cannot be imported without it
    checkpoint.install()
    image_orientation.install()
    inferencer.install()
    ssd_head.install()  # imports mmdet.models
