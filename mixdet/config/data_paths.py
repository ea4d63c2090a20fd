"""Change and check the folders and files that a config reads its data from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath

from mmdet.registry import DATASETS
from mmengine.config import Config

from mixdet.errors import MixDetError
from mixdet.evaluation import load_coco

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
EVALUATORS = ("val_evaluator", "test_evaluator")


def set_data_root(cfg: Config, root: str) -> None:
    """Point every data set and every metric of a config at another folder in the same layout.

    Args:
        cfg: The config. It is changed in place. Data sets inside wrappers are changed too.
        root: The folder.

    Raises:
        MixDetError: A data set has no `data_root`, or a metric's annotation file is not under the
            `data_root` of a data set.
    """
    roots, moved = [], set()  # `moved`: ids of the changed dicts; a config may use a dict twice
    for where, dataset in with_annotations(cfg, LOADERS):
        if "data_root" not in dataset:
            raise MixDetError(f"--data-root: {where} has no data_root to replace: add one")
        if id(dataset) in moved:
            continue
        moved.add(id(dataset))
        roots.append(dataset["data_root"])
        dataset["data_root"] = root
    for where, metric in with_annotations(cfg, EVALUATORS):
        if id(metric) not in moved:
            moved.add(id(metric))
            metric["ann_file"] = _move_file(where, metric["ann_file"], roots, root)


def check_data(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Check that the annotation files and image folders of a run exist.

    Remote paths are not checked. Data sets that write their own files (`makes_its_data` in their
    class) are not checked either.

    Args:
        cfg: The config.
        loaders: The data loaders that the run uses.

    Raises:
        MixDetError: A file or folder is missing.
    """
    required: dict[str, list[PurePath]] = {}  # {data_root: files and folders that must exist}
    missing = None
    for where, dataset in with_annotations(cfg, loaders):
        if getattr(DATASETS.get(dataset["type"]), "makes_its_data", False):
            continue
        root = dataset.get("data_root") or ""
        for part in (dataset["ann_file"], *(dataset.get("data_prefix") or {}).values()):
            path = Path(root, part)
            if part and "://" not in f"{root}{part}":
                required.setdefault(root, []).append(path)
                if not path.exists() and missing is None:
                    missing = (where, root, path)
    if missing is not None:
        where, root, path = missing
        layout = ", ".join(dict.fromkeys(_relative(part, root) for part in required[root]))
        raise MixDetError(
            f"{path} is missing ({where}): {root or 'the config'} must hold {layout}: add it, or "
            "name another folder with --data-root. To train on the embedded data set instead, run "
            "make train, or tools/train.py configs/ssdlite_mixnet_s_digits.py"
        )


def check_annotations(cfg: Config) -> None:
    """Read every annotation file of a config's data sets.

    Raises:
        MixDetError: A file is damaged.
    """
    for _, dataset in with_annotations(cfg, LOADERS):
        load_coco(Path(dataset.get("data_root") or "", dataset["ann_file"]))


def with_annotations(cfg: Config, keys: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    """Find the parts of a config that have a `type` and an `ann_file`: data sets and metrics.

    Args:
        cfg: The config.
        keys: Top-level keys of the config. Everything below these keys is searched.

    Yields:
        The dotted key of a part, such as `train_dataloader.dataset`, and the part.
    """

    def visit(node, where: str) -> Iterator[tuple[str, dict]]:
        if isinstance(node, dict):
            if "type" in node and isinstance(node.get("ann_file"), str) and node["ann_file"]:
                yield where, node
            for key, child in node.items():
                yield from visit(child, f"{where}.{key}")
        elif isinstance(node, (list, tuple)):
            for index, child in enumerate(node):
                yield from visit(child, f"{where}.{index}")

    for key in keys:
        yield from visit(cfg.get(key), key)


def _move_file(where: str, file: str, roots: list[str], root: str) -> str:
    for old in roots:
        if PurePath(file).is_relative_to(old):
            return str(Path(root, PurePath(file).relative_to(old)))
    raise MixDetError(
        f"--data-root: {where}.ann_file ({file}) is not under the data_root of a data set: set "
        f"{where}.ann_file with --cfg-options"
    )


def _relative(path: PurePath, root: str) -> str:
    """Return a path relative to the root. The path of a folder gets a slash at the end."""
    inside = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    return inside if path.suffix else f"{inside}/"
