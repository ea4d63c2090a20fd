"""A checkpoint as a network that predicts: what `mixdet.inference.Detector` loads it with."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import mixdet.plugin

import numpy as np
import torch
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn

from mixdet.compat.checkpoint import load, trust_checkpoints
from mixdet.config.plain import parse_config
from mixdet.config.read import read_config
from mixdet.deploy.fuse import fused_twin
from mixdet.errors import MixDetError
from mixdet.models.weights import load_weights


class TrainedNetwork:
    """A detector of mmdet's with the weights of a checkpoint.

    Attributes:
        model: The detector, as it was trained.
        predictor: What predicts: it, or another form of it; None for a fused copy, where that is
            possible and on the first image the same.
        cfg: Its config.
        pipeline: The steps of its test pipeline, from an array on.
        classes: Class names, indexed by label.

    Args:
        checkpoint: As for `mixdet.inference.Detector`, and so are the others.
        config: A config file, or None for what the checkpoint holds.
        device: Where to compute.
        trust: Unpickle objects and run the checkpoint's config.

    Raises:
        MixDetError: As `Detector` says.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        config: str | os.PathLike | None,
        device: str,
        trust: bool,
    ) -> None:
        content = _load(str(checkpoint), trust)
        cfg = _config(str(checkpoint), content.get("meta", {}), config, trust)
        init_default_scope("mmdet")
        try:
            model = revert_sync_batchnorm(MODELS.build(cfg.model))
            self.pipeline = _from_array(get_test_pipeline_cfg(cfg))
            self._steps = [TRANSFORMS.build(step) for step in self.pipeline]
        except (KeyError, AttributeError) as error:
            raise MixDetError(
                f"the config of {checkpoint} cannot be built ({error}): "
                "name a config file that can, with --config"
            ) from error
        load_weights(model, content, checkpoint)
        try:
            # Depthwise networks run up to three times faster on a CPU with channels last.
            self.model = model.eval().to(device, memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise MixDetError(f"cannot compute on {device}: {reason}") from error
        self.cfg = cfg
        self.classes = _classes(content.get("meta", {}), cfg)
        self.predictor: nn.Module | None = self.model

    def __call__(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        """Boxes (n, 4), scores (n,) and labels (n,) in each RGB image (H, W, 3)."""
        prepared = [self._prepare(image) for image in images]
        batch = {key: [one[key] for one in prepared] for key in ("inputs", "data_samples")}
        with torch.inference_mode():
            if self.predictor is None:
                self.predictor = self._twin(batch)
            samples = self.predictor.test_step(batch)
        found = [sample.pred_instances.cpu().numpy() for sample in samples]
        return [(each.bboxes.reshape(-1, 4), each.scores, each.labels) for each in found]

    def _twin(self, batch: dict) -> nn.Module:
        if isinstance(self.model, SingleStageDetector):
            try:
                return fused_twin(self.model, batch)
            except MixDetError as error:
                warnings.warn(f"predicts without fusing: {error}", stacklevel=4)
        return self.model

    def _prepare(self, image: np.ndarray) -> dict[str, Any]:
        results = {"img": np.ascontiguousarray(image[..., ::-1]), "img_id": 0}
        for step in self._steps:
            results = step(results)
        return results


def _load(name: str, trust: bool) -> dict[str, Any]:
    if not trust:
        return load(name, map_location="cpu")
    trust_checkpoints()
    try:
        return load(name, map_location="cpu")
    finally:
        trust_checkpoints(False)


def _config(name: str, meta: dict, config: str | os.PathLike | None, trust: bool) -> Any:
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
    named = {key.lower(): value for key, value in meta.get("dataset_meta", {}).items()}
    if "classes" not in named:
        dataset = cfg.get("test_dataloader", {}).get("dataset", {})
        kind = DATASETS.get(dataset["type"]) if "type" in dataset else None
        named = dataset.get("metainfo") or getattr(kind, "METAINFO", {})
    return tuple(named.get("classes", ()))
