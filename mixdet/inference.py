"""From a trained detector's file to boxes: `Detector("epoch_12.pth")("street.jpg")`.

Importing this module loads neither torch nor mmdet; a checkpoint loads them when it is opened.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mixdet.errors import MixDetError


@dataclass(frozen=True)
class Detections:
    """What a detector found in one picture, best first.

    Attributes:
        boxes: (n, 4) float32, (x1, y1, x2, y2) in pixels of the picture that was given.
        scores: (n,) float32 in 0..1.
        labels: (n,) int64, indices into the detector's `classes`.
        names: n class names, one a box.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score_thr: float) -> Detections:
        """Only those that score at least `score_thr`."""
        kept = np.flatnonzero(self.scores >= score_thr)
        names = [self.names[index] for index in kept]
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept], names)

    def as_dict(self) -> dict[str, list]:
        """Plain lists, for JSON."""
        return {
            "boxes": self.boxes.tolist(),
            "scores": self.scores.tolist(),
            "labels": self.labels.tolist(),
            "names": self.names,
        }


class Detector:
    """A trained detector: pictures in, boxes out, whatever the size of the pictures.

    Args:
        checkpoint: A checkpoint (`.pth`) of mmengine's.
        config: The config that it was trained with; without it, the one that stands in the
            checkpoint, which is read as plain values and not run.
        device: Where to compute, such as `cpu` or `cuda:0`.
        trust_checkpoint: Unpickle objects and run the checkpoint's config: code of whoever made it.

    Attributes:
        classes: Class names, indexed by label.

    Raises:
        MixDetError: The file cannot be read safely, lacks its config, or does not fit the config.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        config: str | os.PathLike | None = None,
        device: str = "cpu",
        *,
        trust_checkpoint: bool = False,
    ) -> None:
        if not Path(checkpoint).is_file():  # before seconds are spent on imports
            raise MixDetError(f"{checkpoint}: no such checkpoint file")
        # The one seam between files and predictions: `classes`, and a call that takes RGB arrays
        # and gives boxes (n, 4), scores (n,) and labels (n,) for each.
        self._network = _TorchNetwork(checkpoint, config, device, trust_checkpoint)
        self.classes: tuple[str, ...] = self._network.classes

    def __call__(
        self, images: Any, *, score_thr: float = 0.0, batch_size: int = 8
    ) -> Detections | list[Detections]:
        """Detect in one picture, or in each of a list.

        Args:
            images: A path, an array or a PIL picture (see `as_rgb`), or a list of such.
            score_thr: Detections below it are left out; the config has a threshold of its own.
            batch_size: Pictures computed at a time.

        Returns:
            `Detections`, or a list of them for a list.

        Raises:
            MixDetError: A picture cannot be read.
        """
        if not isinstance(images, list | tuple):
            return self([images], score_thr=score_thr)[0]
        found = []
        for start in range(0, len(images), batch_size):
            batch = [as_rgb(image) for image in images[start : start + batch_size]]
            for boxes, scores, labels in self._network(batch):
                order = np.argsort(-scores, kind="stable")
                names = [self._name(label) for label in labels[order]]
                detections = Detections(boxes[order], scores[order], labels[order], names)
                found.append(detections.above(score_thr))
        return found

    def _name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)


def as_rgb(image: Any) -> np.ndarray:
    """A picture as an array (H, W, 3) uint8, RGB; transparency is dropped, as in training.

    Args:
        image: The path of a file, which is turned upright as its EXIF tag says; or an array,
            (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, uint8; or a PIL picture. The last
            two are taken as they are, so that boxes are in their pixels.

    Raises:
        MixDetError: The file is not a picture, or the array is not one of those.
    """
    if isinstance(image, str | os.PathLike):
        return _read(Path(image))
    if hasattr(image, "convert"):  # PIL, which need not be imported for this
        return np.asarray(image.convert("RGB"))
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise MixDetError(
            f"not a picture: an array of shape {array.shape} and type {array.dtype}; "
            "give (H, W), (H, W, 3) RGB or (H, W, 4) RGBA in uint8"
        )
    if not array.size:
        raise MixDetError(f"a picture without pixels: an array of shape {array.shape}")
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., :3]


def _read(path: Path) -> np.ndarray:
    """Read a file as mmdet's pipelines do, so that prediction sees what evaluation saw."""
    try:
        content = np.fromfile(path, np.uint8)
        bgr = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except OSError as error:
        raise MixDetError(f"cannot read {path}: {error.strerror}") from error
    except cv2.error as error:
        raise MixDetError(f"cannot read {path} as a picture: {error.err}") from error
    if bgr is None:
        raise MixDetError(f"cannot read {path} as a picture: damaged, or another kind of file")
    return np.ascontiguousarray(bgr[..., ::-1])


class _TorchNetwork:
    """A detector of mmdet's with the weights of a checkpoint."""

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        config: str | os.PathLike | None,
        device: str,
        trust: bool,
    ) -> None:
        import mixdet.plugin  # noqa: F401, I001 - before anything of mmdet's
        import torch
        from mmdet.registry import MODELS, TRANSFORMS
        from mmdet.utils import get_test_pipeline_cfg
        from mmengine.model import revert_sync_batchnorm
        from mmengine.registry import init_default_scope

        from mixdet.engine.hooks.fit import fill

        content = _load(str(checkpoint), trust)
        cfg = _config(str(checkpoint), content.get("meta", {}), config, trust)
        init_default_scope("mmdet")
        try:
            model = revert_sync_batchnorm(MODELS.build(cfg.model))
            steps = _from_array(get_test_pipeline_cfg(cfg))
            self._pipeline = [TRANSFORMS.build(step) for step in steps]
        except (KeyError, AttributeError) as error:
            raise MixDetError(
                f"the config of {checkpoint} cannot be built ({error}): "
                "name a config file that can, with --config"
            ) from error
        fill(model, content, checkpoint)
        try:
            # Depthwise networks run up to three times faster on a CPU with channels last.
            self._model = model.eval().to(device, memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise MixDetError(f"cannot compute on {device}: {reason}") from error
        self.classes = _classes(content.get("meta", {}), cfg)

    def __call__(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        import torch

        prepared = [self._prepare(image) for image in images]
        batch = {key: [one[key] for one in prepared] for key in ("inputs", "data_samples")}
        with torch.inference_mode():
            samples = self._model.test_step(batch)
        found = [sample.pred_instances.cpu().numpy() for sample in samples]
        return [(each.bboxes.reshape(-1, 4), each.scores, each.labels) for each in found]

    def _prepare(self, image: np.ndarray) -> dict[str, Any]:
        results = {"img": np.ascontiguousarray(image[..., ::-1]), "img_id": 0}
        for step in self._pipeline:
            results = step(results)
        return results


def _load(name: str, trust: bool) -> dict[str, Any]:
    from mixdet.compat.checkpoint import load, trust_checkpoints

    if not trust:
        return load(name, map_location="cpu")
    trust_checkpoints()
    try:
        return load(name, map_location="cpu")
    finally:
        trust_checkpoints(False)


def _config(name: str, meta: dict, config: str | os.PathLike | None, trust: bool) -> Any:
    from mmengine.config import Config

    from mixdet.engine.config import read_config

    if config is not None:
        return read_config(config)
    if not isinstance(meta.get("cfg"), str):
        raise MixDetError(f"{name} does not hold its config: name it with --config")
    if trust:
        return Config.fromstring(meta["cfg"], ".py")
    try:
        return Config(parse_config(meta["cfg"]))
    except ValueError as error:
        raise MixDetError(
            f"the config in {name} would run code ({error}): name a config file with --config, or "
            "use --trust-checkpoint if you trust whoever made it"
        ) from error


def parse_config(text: str) -> dict[str, Any]:
    """Read a config that mmengine wrote (`Config.pretty_text`) without running it.

    mmengine itself executes such text as Python, and its registry resolves a `type` such as
    `os.system` or `mmengine.rmtree` to whatever that name means. Here the text may hold assignments
    of plain values only, and a `type` only a registered name, with mmdet's or mixdet's scope.

    Raises:
        ValueError: The text holds anything else.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno} is not Python") from error
    config = {}
    for line in tree.body:
        targets = line.targets if isinstance(line, ast.Assign) else []
        if [type(target) for target in targets] != [ast.Name]:
            raise ValueError(f"line {line.lineno} is no assignment to a name")
        config[targets[0].id] = _plain(line.value)
    return config


def _plain(node: ast.expr) -> Any:
    """The value of an expression made of literals, containers and `dict(key=value)`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        if [type(argument) for argument in node.args] == [ast.Dict] and not node.keywords:
            return _plain(node.args[0])  # how mmengine writes keys that are no names
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            raise ValueError(f"line {node.lineno} calls dict with more than keywords")
        return _checked({keyword.arg: _plain(keyword.value) for keyword in node.keywords})
    if isinstance(node, ast.Dict) and None not in node.keys:
        pairs = zip(node.keys, node.values, strict=True)
        return _checked({_plain(key): _plain(value) for key, value in pairs})
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_plain(item) for item in node.elts)
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return float(node.id)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"line {node.lineno} is no plain value") from None


def _checked(config: dict) -> dict:
    kind = config.get("type", "")
    registered = r"((mixdet|mmdet)\.)?\w+"
    if isinstance(kind, str) and kind and not re.fullmatch(registered, kind):
        raise ValueError(f"the type {kind} is no registered name")
    return config


def _from_array(pipeline: Sequence[dict]) -> list[dict]:
    """The steps of a test pipeline, starting from an array instead of a file."""
    steps = []
    for step in pipeline:
        kind = getattr(step["type"], "__name__", step["type"]).split(".")[-1]
        if kind == "LoadImageFromFile":
            kept = {key: step[key] for key in ("to_float32",) if key in step}
            steps.append({"type": "mmdet.LoadImageFromNDArray", **kept})
        elif not kind.startswith("LoadAnnotations"):
            steps.append(step)
    return steps


def _classes(meta: dict, cfg: Any) -> tuple[str, ...]:
    """Class names as the checkpoint has them, or the config's test data set."""
    from mmdet.registry import DATASETS

    named = {key.lower(): value for key, value in meta.get("dataset_meta", {}).items()}
    if "classes" not in named:
        dataset = cfg.get("test_dataloader", {}).get("dataset", {})
        kind = DATASETS.get(dataset["type"]) if "type" in dataset else None
        named = dataset.get("metainfo") or getattr(kind, "METAINFO", {})
    return tuple(named.get("classes", ()))
