"""The lines of a config that set another input size than the base config has."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixdet.config.input_size import set_input_size
from mixdet.config.read import read_config

PIPELINES = ("train_pipeline", "test_pipeline")


@dataclass(frozen=True)
class SizeText:
    """What a config states for an input size.

    Attributes:
        lines: Lines that set the variables `size`, `train_pipeline` and `test_pipeline`.
        model: Arguments of `model`.
        head: Arguments of `bbox_head`.
    """

    lines: list[str]
    model: dict[str, str]
    head: dict[str, str]


def describe_size(base: Path, size: tuple[int, int]) -> SizeText:
    """Return the changes of `--size` to a config, as text for a config file.

    Args:
        base: The config whose size is changed.
        size: (width, height) in pixels.
    """
    before = read_config(base)
    after = copy.deepcopy(before)
    set_input_size(after, size)
    lines = [f"size = {size}  # (width, height) of the input"]
    for name in PIPELINES:
        lines.append(f"{name} = _base_.{name}")
        for index, (old, new) in enumerate(zip(before[name], after[name], strict=True)):
            changed = _changes(old, new)
            values = {key: "size" if _is(value, size) else value for key, value in changed.items()}
            if values:
                arguments = ", ".join(f"{key}={value}" for key, value in values.items())
                lines.append(f"{name}[{index}].update({arguments})")
    anchors = _changes(
        before.model.bbox_head.anchor_generator, after.model.bbox_head.anchor_generator
    )
    arguments = ", ".join(f"{key}={value}" for key, value in anchors.items())
    return SizeText(
        lines, {"input_size": "size"}, {"anchor_generator": f"dict({arguments})"} if anchors else {}
    )


def _changes(old: dict, new: dict) -> dict[str, Any]:
    return {key: value for key, value in new.items() if key not in old or old[key] != value}


def _is(value: Any, size: tuple[int, int]) -> bool:
    return isinstance(value, list | tuple) and tuple(value) == size
