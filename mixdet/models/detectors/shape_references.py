"""Let the config of a detector refer to the shapes that its backbone and its neck give.

    model = dict(
        type="RetinaNet",
        backbone=dict(type="MixNet", arch="m", taps=("stage3", "stage5", "stage6")),
        neck=dict(type="FPN", in_channels="backbone", out_channels=256, num_outs=5),
        bbox_head=dict(..., anchor_generator=dict(..., strides="neck")),
    )

Anywhere in the detector, a key that ends with `channels` or `strides` may have the value
`"backbone"` or `"neck"`: a list with one entry for each output. `"backbone[-1]"` is the entry of
the last output, and `"neck[:4]"` a list of the first four. So another backbone needs no other
change.

mmdet builds backbone, neck and head from their configs, independently of each other. So the parts
that a reference names are built first, and the detector gets them instead of their configs. A class
with the attribute `reads_shapes`, such as `SSDLite`, does this itself.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import compress
from typing import Any

from mmdet.registry import MODELS
from mmengine.registry import MODELS as ROOT_MODELS
from torch import nn

from mixdet.errors import MixDetError, one_line
from mixdet.image_size import as_wh
from mixdet.models.detectors.feature_maps import FeatureMap, backbone_maps, neck_maps

REFERENCE = re.compile(r"(backbone|neck)(?:\[(-?\d*(?::-?\d*){0,2})\])?")
EXAMPLES = 'use "backbone", "backbone[-1]", "neck" or "neck[:4]", or type the numbers'
# The runs on zeros take images of this side, unless the detector has an `input_size`. A backbone of
# stride 32 gives 16 x 16 cells, of which a neck can make four coarser levels.
SIDE = 512


def install() -> None:
    """Let mmdet's and mmengine's registries of models resolve references."""
    for registry in (MODELS, ROOT_MODELS):
        if getattr(registry.build_func, "func", None) is not _build_model:
            registry.build_func = partial(_build_model, registry.build_func)


def _build_model(build: Callable, cfg: Any, *args: Any, **kwargs: Any) -> nn.Module:
    """Build a model as mmengine does. A model that is built already is returned as it is."""
    if isinstance(cfg, nn.Module):
        return cfg
    if isinstance(cfg, dict) and isinstance(cfg.get("backbone"), dict) and any(_references(cfg)):
        kind = cfg.get("type")
        kind = MODELS.get(kind) if isinstance(kind, str) else kind
        if not getattr(kind, "reads_shapes", False):
            cfg = _resolved(cfg)
    return build(cfg, *args, **kwargs)


def _resolved(cfg: dict) -> dict:
    """Return a copy of a detector's config with built parts and without references.

    Raises:
        MixDetError: A reference is misspelled, or names an output or a neck that does not exist. Or
            the neck cannot be run on zeros.
    """
    cfg = copy.deepcopy(cfg)
    cfg["backbone"] = MODELS.build(cfg["backbone"])
    wh = as_wh(cfg.get("input_size", SIDE), "model.input_size")
    maps = backbone_maps(cfg["backbone"], wh)
    shapes, references = {"backbone": maps}, list(_references(cfg))
    of_neck = [_is_in_neck(path) for path, *_ in references]
    for reference in compress(references, of_neck):
        _replace(*reference, shapes, wh)
    others = [*compress(references, (not inside for inside in of_neck))]
    if any(node[key].startswith("neck") for _, node, key in others) and cfg.get("neck"):
        cfg["neck"] = MODELS.build(cfg["neck"])
        try:
            shapes["neck"] = neck_maps(cfg["neck"], maps)
        except Exception as error:  # a neck is any code
            raise MixDetError(
                f"model.neck cannot be run on zeros to find its shapes: {one_line(error)}; type "
                'the numbers in place of "neck"'
            ) from error
    for reference in others:
        _replace(*reference, shapes, wh)
    return cfg


def _is_in_neck(path: str) -> bool:
    return path.startswith(("model.neck.", "model.neck["))


def _references(node: Any, path: str = "model") -> Iterator[tuple[str, dict, str]]:
    """Yield the references of a config: the path of the value, and the dict and the key of it.

    The configs of backbone and nested detectors are left out.
    """
    if isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _references(value, f"{path}[{index}]")
    elif isinstance(node, dict) and (path == "model" or "backbone" not in node):
        for key, value in node.items():
            where = f"{path}.{key}"
            if isinstance(value, str) and str(key).endswith(("channels", "strides")):
                yield where, node, key
            elif key != "backbone":
                yield from _references(value, where)


def _replace(
    path: str,
    node: dict,
    key: str,
    shapes: dict[str, Sequence[FeatureMap]],
    input_wh: tuple[int, int],
) -> None:
    """Replace a reference by its value, in place. A stride is a pair (x, y) if the two differ."""
    reference = node[key]
    match = REFERENCE.fullmatch(reference)
    if not match:
        raise MixDetError(f"{path}={reference!r} is not a reference: {EXAMPLES}")
    part, index = match.groups()
    if part not in shapes:
        missing = "this key cannot refer to" if _is_in_neck(path) else "there is no"
        raise MixDetError(f"{path}={reference!r}: {missing} model.neck: {EXAMPLES}")
    maps = shapes[part]
    if key.endswith("channels"):
        values = [feature_map.channels for feature_map in maps]
    else:
        width, height = input_wh
        pairs = [(round(width / m.columns), round(height / m.rows)) for m in maps]
        values = [x if x == y else (x, y) for x, y in pairs]
    if index is None:
        node[key] = values
        return
    numbers = [int(number) if number else None for number in index.split(":")]
    try:
        node[key] = values[slice(*numbers)] if len(numbers) > 1 else values[numbers[0]]
    except (IndexError, TypeError, ValueError):  # too large, `[]`, or a slice of step 0
        raise MixDetError(
            f"{path}={reference!r}: model.{part} has {len(values)} outputs: {EXAMPLES}"
        ) from None
