"""Fixes that mmdet 3.3 needs on current torch.

Each module describes the fault that it fixes, and says when the module can be removed.

Importing this package changes nothing. `prepare()` applies the fixes, and must run before anything
imports `mmdet.models`, `mmdet.apis` or `mmcv.ops`. `mixdet.plugin`, which our configs import, calls
`prepare()`. `python -m mixdet.run SCRIPT` calls it before it starts the script.
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

    pkgutil_loader.install()  # first, since the other fixes import mmcv and mmengine, which need it
    package_paths.install()
    mmcv_ops.install()  # before ssd_head, since mmdet.models needs the operators
    checkpoint.install()
    image_orientation.install()
    inferencer.install()
    ssd_head.install()  # imports mmdet.models
