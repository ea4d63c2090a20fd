"""Replace the compiled operators of mmcv, `mmcv._ext`, if mmcv lacks them.

The fault: mmcv-lite 2.1.0, and onedl-mmcv built with MMCV_WITH_OPS=0, have `mmcv/ops/*.py` but no
`mmcv._ext`. So `import mmdet.models` fails, although most detectors use few of the operators.

The fix: a stand-in module for `mmcv._ext` computes the operators that mmdet's detectors use, with
torch and torchvision, on CPUs and GPUs. All other operators of the module raise an error when they
are called. A compiled mmcv is not changed.

An operator has mmcv's signature: it writes its results into tensors that the caller has allocated.
In half precision it computes in float32.

This module can be removed when mmdet can be imported without `mmcv._ext`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

import torchvision

from mixdet.compat.mmcv_ops import (
    box_suppression,
    deformable,
    feature_reassembly,
    focal_loss,
    masked_conv,
    roi_pooling,
)
from mixdet.errors import MixDetError

EXTENSION = "mmcv._ext"
REMEDY = (
    "take the layer that uses it out of the config, or use an environment with PyTorch 2.11, "
    "onedl-mmdetection 3.5.1 and onedl-mmcv 2.3.6, which pip compiles (docs/any_detector.md)"
)


def _not_compiled() -> str:
    """Return a text for mmcv's environment report instead of a compiler or CUDA version."""
    return "n/a (not compiled)"


MODULES = (
    *(box_suppression, deformable, feature_reassembly),
    *(focal_loss, masked_conv, roi_pooling),
)
OPERATORS = {operator.__name__: operator for module in MODULES for operator in module.OPERATORS}


class StandIn(ModuleType):
    """A module in place of `mmcv._ext`. Calling an operator that it lacks raises an error."""

    def __init__(self, name: str, doc: str | None = None) -> None:
        super().__init__(name, doc)
        vars(self).update(OPERATORS)
        self.get_compiler_version = self.get_compiling_cuda_version = _not_compiled

    def __getattr__(self, name: str) -> Callable:
        if name.startswith("__"):  # such as __path__, which is not an operator
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> None:
            raise MixDetError(f"mmcv's operator {name!r} needs a compiled mmcv: {REMEDY}")

        missing.__name__ = name
        return missing


def install() -> None:
    """Put the stand-in where mmcv looks for its operators, unless mmcv is compiled."""
    if find_spec(EXTENSION) is None:
        module = StandIn(EXTENSION, __doc__)
        module.__spec__ = ModuleSpec(EXTENSION, loader=None, origin=__file__)
        sys.modules[EXTENSION] = module


def which_nms() -> str:
    """Describe in words which NMS mmdet uses. `install` has to run first."""
    stand_in = isinstance(sys.modules.get(EXTENSION), StandIn)
    version = torchvision.__version__
    return f"torchvision {version} (mmcv-lite stand-in)" if stand_in else "compiled mmcv"
