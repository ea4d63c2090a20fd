"""Change the size of a network's input everywhere in a config: model, anchors and pipelines.

A size in pixels is (width, height), as in mmdet's `scale`, unless a comment says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from mixdet.config.data_paths import LOADERS
from mixdet.errors import MixDetError
from mixdet.image_size import as_size, as_wh, width_x_height

# The arguments of transforms that are sizes in pixels. Each letter says how a number is scaled:
# like the width (w), the height (h) or the shorter side (s) of the input.
TRANSFORM_SIZES = {
    "SSDRandomCrop": {"scale": "wh"},
    "Resize": {"scale": "wh"},
    "FixScaleResize": {"scale": "wh"},
    "FixShapeResize": {"width": "w", "height": "h"},
    "RandomResize": {"scale": "wh"},
    "RandomChoiceResize": {"scales": "wh"},
    "ResizeShortestEdge": {"scale": "s", "max_size": "s"},
    "MultiScaleFlipAug": {"scales": "wh"},
    "RandomCrop": {"crop_size": "wh"},
    "CenterCrop": {"crop_size": "wh"},
    "RandomCenterCropPad": {"crop_size": "wh"},
    "Pad": {"size": "wh"},
    "Mosaic": {"img_scale": "wh"},
    "CachedMosaic": {"img_scale": "wh"},
    "MixUp": {"img_scale": "wh"},
    "CachedMixUp": {"img_scale": "wh"},
    "RandomAffine": {"border": "wh"},
    # in `model.data_preprocessor.batch_augments`
    "BatchResize": {"scale": "wh"},
    "BatchFixedSizePad": {"size": "hw"},
    "BatchSyncRandomResize": {"random_size_range": "hh"},
}
ANCHOR_SIZES = ("min_sizes", "max_sizes", "base_sizes")  # in pixels


def input_wh(cfg: Config) -> tuple[int, int] | None:
    """Return the (width, height) in pixels of the images that a config's network takes.

    This size is `model.input_size`, or else the size that the test pipeline resizes to. If this
    pipeline keeps the proportions of the images, wide images fit into (width, height), and tall
    images into (height, width).

    Returns:
        The size. None if the config states none.
    """
    try:
        return _model_wh(cfg) or _pipeline_wh(cfg)
    except MixDetError:  # a model of another package may mean something else by `input_size`
        return None


def set_input_size(cfg: Config, size: int | tuple[int, int]) -> None:
    """Change the size of the network's input, in place.

    The config then looks as if its file stated the new values:

    - The sizes in pixels in pipelines and in `batch_augments` that `TRANSFORM_SIZES` lists are
      multiplied by the new width or height divided by the old one. Other arguments stay.
    - `model.input_size` is set. `SSDLite` computes strides and centers of the anchors from it.
    - The sizes of anchors in pixels (`min_sizes`, `max_sizes`, `base_sizes`) are multiplied by the
      new shorter side divided by the old one. So the aspect ratios of anchors stay, and the largest
      square anchors fit into the image as before. Anchors whose sizes are multiples of the strides,
      such as RetinaNet's, stay.

    Args:
        cfg: The config.
        size: (width, height) in pixels, or the side of a square.

    Raises:
        MixDetError: `mixdet.image_size.as_wh` refuses the size, a pipeline does not resize, or a
            part of the config cannot take the size.
    """
    wh = as_wh(size, "--size")
    for loader in LOADERS:
        if cfg.get(loader) and not any(_sized_transforms(cfg[loader])):
            raise MixDetError(
                f"--size: {loader}: no transform of its pipeline resizes images: add "
                "dict(type='Resize', scale=(width, height), keep_ratio=False)"
            )
    model = cfg.get("model") or {}
    model_wh, images_wh = _model_wh(cfg), _pipeline_wh(cfg)
    old_wh = model_wh or images_wh
    if old_wh is None:
        raise MixDetError(
            "--size: the config states no size of images that could be changed: add "
            "dict(type='Resize', scale=(width, height), keep_ratio=False) to its pipelines"
        )
    for generator in _anchor_generators(model):
        _set_anchors(generator, wh, old_wh, fixed_strides=not model_wh)
    if model_wh:
        _check_fixed_size(cfg, wh)
        model["input_size"] = as_size(wh)
    factors = _factors(wh, images_wh or old_wh)
    for transform in _sized_transforms(_without_model(cfg)):
        for key, sides in TRANSFORM_SIZES[_kind(transform)].items():
            if key in transform:
                transform[key] = _scaled(transform[key], sides, factors)
    if cfg.get("input_size") in (as_size(old_wh), old_wh, list(old_wh)):
        cfg.input_size = as_size(wh)  # the variable that the pipelines were computed from


def _model_wh(cfg: Config) -> tuple[int, int] | None:
    """Return the (width, height) that the model is built for. None if it takes any size."""
    model = cfg.get("model") or {}
    default = 320 if _kind(model) == "SSDLite" else None
    size = model.get("input_size", default)
    return None if size is None else as_wh(size, "model.input_size")


def _pipeline_wh(cfg: Config) -> tuple[int, int] | None:
    """Return the (width, height) that the test pipeline, or else another one, resizes to."""
    for loader in reversed(LOADERS):
        for step in _sized_transforms(cfg.get(loader)):
            size = step.get("scale", (step.get("width"), step.get("height")))
            wh = size if isinstance(size, list | tuple) else (size, size)
            if len(wh) == 2 and all(type(side) is int for side in wh):
                return tuple(wh)
    return None


def _kind(node: dict) -> str:
    return str(node.get("type")).split(".")[-1]


def _without_model(cfg: Config) -> list:
    """Return the parts of a config that can hold transforms of images."""
    preprocessor = (cfg.get("model") or {}).get("data_preprocessor")
    return [preprocessor, *(value for key, value in cfg.items() if key != "model")]


def _sized_transforms(node: Any) -> Iterator[dict]:
    """Yield each transform that has a size in pixels, once."""
    seen = set()

    def visit(node: Any) -> Iterator[dict]:
        if id(node) in seen:  # a config may use a list or a dict twice
            return
        seen.add(id(node))
        if isinstance(node, dict):
            if TRANSFORM_SIZES.get(_kind(node), {}).keys() & node.keys():
                yield node
            node = list(node.values())
        if isinstance(node, list | tuple):
            for child in node:
                yield from visit(child)

    yield from visit(node)


def _factors(wh: tuple[int, int], old_wh: tuple[int, int]) -> dict[str, float]:
    return {"w": wh[0] / old_wh[0], "h": wh[1] / old_wh[1], "s": min(wh) / min(old_wh)}


def _scaled(value: Any, sides: str, factors: dict[str, float]) -> Any:
    """Multiply a size, or each size in a list. A value that is not an integer stays."""
    if isinstance(value, list | tuple):
        if len(value) == len(sides) and all(type(side) is int for side in value):
            pairs = zip(value, sides, strict=True)
            return type(value)(round(number * factors[side]) for number, side in pairs)
        return type(value)(_scaled(item, sides, factors) for item in value)
    if type(value) is not int:
        return value
    scaled = [round(value * factors[side]) for side in sides]
    return scaled[0] if len({*scaled}) == 1 else tuple(scaled)


def _check_fixed_size(cfg: Config, wh: tuple[int, int]) -> None:
    """Refuse padding and resizing that would give the model images of another size than `wh`."""
    divisor = (cfg.model.get("data_preprocessor") or {}).get("pad_size_divisor", 1)
    if any(side % divisor for side in wh):
        raise MixDetError(
            f"--size {width_x_height(wh)}: model.data_preprocessor.pad_size_divisor={divisor} pads "
            f"the images: give multiples of {divisor}, or set pad_size_divisor to 1"
        )
    for transform in _sized_transforms(_without_model(cfg)):
        fixed = _kind(transform) in ("Resize", "FixScaleResize", "FixShapeResize")
        if wh[0] != wh[1] and fixed and transform.get("keep_ratio"):
            raise MixDetError(
                f"--size {width_x_height(wh)}: {_kind(transform)} with keep_ratio=True turns the "
                "size for upright images, but the model takes one size: set keep_ratio=False, or "
                "give a square"
            )


def _anchor_generators(node: Any) -> Iterator[dict]:
    if isinstance(node, dict):
        if isinstance(generator := node.get("anchor_generator"), dict):
            yield generator
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from _anchor_generators(child)


def _set_anchors(
    generator: dict, wh: tuple[int, int], old_wh: tuple[int, int], fixed_strides: bool
) -> None:
    strides = generator.get("strides") or []
    strides = [] if isinstance(strides, str) else strides  # "neck" fits every size
    # Feature maps have strides of powers of two at every size. SSD's other strides are the sides of
    # the image divided by the numbers of cells.
    special = [s for s in strides if not isinstance(s, int) or s & (s - 1)]
    if special and fixed_strides:
        raise MixDetError(
            f"--size: model.bbox_head.anchor_generator.strides={list(strides)} belong to one size "
            "of images: use SSDLite, which computes the strides, or write them in the config"
        )
    if not fixed_strides:
        generator.pop("strides", None)  # `SSDLite` fills them in
    if "input_size" in generator:
        pair = _kind(generator) == "TFSSDAnchorGenerator"
        generator["input_size"] = as_size(wh) if pair else min(wh)
    for key in ANCHOR_SIZES:
        if key in generator:
            generator[key] = _multiplied(generator[key], min(wh), min(old_wh))


def _multiplied(value: Any, new: int, old: int) -> Any:
    """Multiply each number of a nested list by new / old, exact to a hundredth of a pixel."""
    if isinstance(value, list | tuple):
        return type(value)(_multiplied(item, new, old) for item in value)
    product = round(value * new / old, 2)
    return int(product) if product == int(product) else product
