"""Let mmdet's `DetInferencer` accept a `collate_fn` with arguments.

The fault: our configs have a `collate_fn` that is a dict with `type`. mmengine's runner builds it.
mmengine 0.10.7's `BaseInferencer`, the base class of `DetInferencer`, looks up the dict as if it
were a name. It fails with "The key argument of `Registry.get` must be a str".

The fix: `BaseInferencer` builds a dict as the runner does. Names are looked up as before.

This module can be removed when `BaseInferencer` accepts a dict.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any


def install() -> None:
    """Replace the method of `BaseInferencer` that looks up the `collate_fn`."""
    from mmengine.infer.infer import BaseInferencer
    from mmengine.registry import FUNCTIONS

    original = BaseInferencer._init_collate
    if getattr(original, "accepts_dict", False):
        return

    @wraps(original)
    def _init_collate(self: BaseInferencer, cfg: Any) -> Callable:
        collate_fn = (cfg.get("test_dataloader") or {}).get("collate_fn")
        if not isinstance(collate_fn, dict):
            return original(self, cfg)
        arguments = dict(collate_fn)
        function = arguments.pop("type")
        if isinstance(function, str):
            with FUNCTIONS.switch_scope_and_registry(self.scope) as registry:
                function = registry.get(function)
        return partial(function, **arguments)

    _init_collate.accepts_dict = True
    BaseInferencer._init_collate = _init_collate
