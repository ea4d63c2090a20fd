"""Write the config as text that a person can read and edit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixdet.config.shipped import shipped_folder
from mixdet.own_data.size_text import SizeText, describe_size
from mixdet.own_data.training_plan import TrainingPlan

WIDTH = 100  # characters of a line

TEMPLATE = '''"""{title}

Written by `init`; edit it freely. Paths are relative to the folder that the commands are run in.
"""

_base_ = {base}
classes = {classes}
{size_lines}data = dict(data_root={data_root}, metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size={plan.batch_size},
    dataset=dict(
        **data,
        ann_file={train[0]},
        data_prefix=dict(img={train[1]}),{train_pipeline}
        filter_cfg=dict(filter_empty_gt={skip_empty}, min_size=1),  # {empty_comment}
    ),
)
val_dataloader = {val}
test_dataloader = {test_dataloader}
val_evaluator = dict(ann_file={val_file})
test_evaluator = {test_evaluator}
model = {model}
# {plan.iterations:,} iterations; the learning rate falls to the end of the last epoch
train_cfg = dict(max_epochs={plan.max_epochs}, val_interval={plan.val_interval})
default_hooks = dict(checkpoint=dict(interval={plan.val_interval}))
'''
LOADER = """dict(
    dataset=dict(
        **data,
        ann_file={},
        data_prefix=dict(img={}),{}
    )
)"""


def base_config() -> Path:
    """Return the path of the config that the written configs are based on."""
    return shipped_folder("configs") / "_base_" / "own_data.py"


def render_config(
    out: Path,
    title: str,
    classes: Sequence[str],
    data_root: str,
    files: Mapping[str, tuple[str, str]],
    plan: TrainingPlan,
    skip_empty: bool,
    size: tuple[int, int] | None = None,
) -> str:
    """Return the text of a config.

    Args:
        out: The file that the text will be written to.
        title: First line of the docstring.
        classes: Names of the classes, in order.
        data_root: The folder that `files` are relative to, or an empty text.
        files: (annotation file, image folder) of `train`, `val` and, if there is one, `test`.
        plan: Batch size and epochs.
        skip_empty: Whether training leaves out images without boxes.
        size: (width, height) in pixels of the input. None takes the size of the base config.
    """
    base = base_config()
    sized = describe_size(base, size) if size else SizeText([], {}, {})
    pipeline = "\n        pipeline={}_pipeline," if size else ""
    quoted = {split: tuple(map(_quote, pair)) for split, pair in files.items()}
    test_dataloader, test_evaluator = "val_dataloader", "val_evaluator"
    if "test" in files:
        test_dataloader = LOADER.format(*quoted["test"], pipeline.format("test"))
        test_evaluator = f"dict(ann_file={_quote(data_root + files['test'][0])})"
    return TEMPLATE.format(
        title=title.replace("\\", "/").replace('"""', "'''"),
        base=_quote(_base_path(base.resolve(), out)),
        size_lines="".join(f"{line}\n" for line in sized.lines),
        train_pipeline=pipeline.format("train"),
        model=_model(sized),
        classes=_tuple(classes),
        data_root=_quote(data_root),
        plan=plan,
        train=quoted["train"],
        val=LOADER.format(*quoted["val"], pipeline.format("test")),
        val_file=_quote(data_root + files["val"][0]),
        skip_empty=skip_empty,
        empty_comment="without boxes: left out" if skip_empty else "images without boxes are used",
        test_dataloader=test_dataloader,
        test_evaluator=test_evaluator,
    )


def _base_path(base: Path, out: Path) -> str:
    """Return the path of the base config, relative if both are in one folder or checkout."""
    if (out.parent / "_base_" / "own_data.py").is_file():
        return "_base_/own_data.py"
    folder, checkout = out.resolve().parent, base.parents[2]
    if ".mim" not in base.parts and folder.is_relative_to(checkout):
        return Path(os.path.relpath(base, folder)).as_posix()
    return base.as_posix()


def _model(sized: SizeText) -> str:
    """Return the value of `model`."""
    head = {"num_classes": "len(classes)", **sized.head}
    if not sized.model:
        return f"dict(bbox_head=dict({_arguments(head)}))"
    lines = "".join(f"        {key}={value},\n" for key, value in head.items())
    return f"dict(\n    {_arguments(sized.model)},\n    bbox_head=dict(\n{lines}    ),\n)"


def _arguments(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _quote(text: str) -> str:
    """Return a string literal in double quotes, as the shipped configs write it."""
    literal = repr(text)
    return f'"{literal[1:-1]}"' if literal[0] == "'" and '"' not in text else literal


def _tuple(names: Sequence[str]) -> str:
    """Return a tuple literal, in lines of at most `WIDTH` characters."""
    items = [f"{_quote(name)}," for name in names]
    one_line = f"({' '.join(items).removesuffix(',')})"
    if len(items) == 1:
        return f"({items[0]})"
    if len(f"classes = {one_line}") <= WIDTH:
        return one_line
    lines = [""]
    for item in items:
        if len(lines[-1]) + len(item) + 5 > WIDTH:
            lines.append("")
        lines[-1] += f" {item}" if lines[-1] else item
    return "(\n    " + "\n    ".join(lines) + "\n)"
