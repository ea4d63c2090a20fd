"""Load a checkpoint as a network that predicts, for `mixdet.inference.Detector`."""

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
from mmengine.utils import to_2tuple
from torch import nn

from mixdet.compat.checkpoint import load
from mixdet.config.input_size import input_wh, set_input_size
from mixdet.config.plain import parse_config
from mixdet.config.read import checkpoint_config, read_config
from mixdet.config.types import name_types, registered_name
from mixdet.errors import MixDetError, one_line
from mixdet.image_size import width_x_height
from mixdet.models.detectors import fused_twin
from mixdet.models.weights import load_weights


class TrainedNetwork:
    """A detector of mmdet with the weights of a checkpoint.

    Attributes:
        model: The detector, not fused.
        predictor: The module that predicts: `model`, or its fused copy.
        cfg: The detector's config.
        pipeline: The test pipeline, changed to take an array instead of a file.
        steps: The transforms that `pipeline` describes.
        classes: Class names, indexed by label.

    Args:
        checkpoint: Path of the checkpoint.
        config: Path of its config. None takes the config in the checkpoint.
        device: Where to compute, such as `cpu` or `cuda:0`.
        trust: Unpickle any object in the checkpoint, and run its config as Python.
        fuse: Predict with a faster copy of `model` (see `mixdet.models.fusing.fuse`), if `model` is
            a single-stage detector. The first call makes the copy, and compares the outputs of the
            copy and of `model` for one image. If `model` cannot be fused, or the outputs differ,
            the call warns, and `model` predicts.
        size: Size of the network's input in pixels: (width, height), or the side of a square. By
            default it is the size that the checkpoint was trained with, as the config in the
            checkpoint states it. If `config` has another size, a warning says so. If
            `mixdet.config.plain` cannot read the config in the checkpoint, the size is taken from
            `config`.

    Raises:
        MixDetError: The checkpoint cannot be read safely, has no config or does not fit its config,
            or the device cannot be used.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        config: str | os.PathLike | None = None,
        device: str = "cpu",
        trust: bool = False,
        *,
        fuse: bool = False,
        size: int | tuple[int, int] | None = None,
    ) -> None:
        content = load(str(checkpoint), "cpu", trust)
        meta = content.get("meta", {})
        cfg = _read_config(str(checkpoint), meta, config, trust)
        if config is not None:
            _take_trained_size(cfg, checkpoint_config(meta), warn=size is None)
        if size is not None and to_2tuple(size) != input_wh(cfg):
            set_input_size(cfg, size)
        init_default_scope("mmdet")
        try:
            model = revert_sync_batchnorm(MODELS.build(cfg.model))
            self.pipeline = _from_array(get_test_pipeline_cfg(cfg))
            self.steps = [TRANSFORMS.build(step) for step in self.pipeline]
        except (KeyError, AttributeError) as error:
            raise MixDetError(
                f"{checkpoint}: its config cannot be built ({one_line(error)}): name another "
                "config file with --config"
            ) from error
        load_weights(model, content, checkpoint)
        try:
            # On a CPU, depthwise networks are up to three times faster with channels last
            self.model = model.eval().to(device, memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise MixDetError(f"cannot compute on {device}: {reason}") from error
        self.cfg = cfg
        self.classes = _class_names(meta, cfg)
        self.predictor: nn.Module = self.model
        self._to_fuse = fuse and isinstance(model, SingleStageDetector)

    def __call__(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        """Detect objects in RGB images (H, W, 3).

        Returns:
            For each image: boxes (n, 4) as (x1, y1, x2, y2) in pixels of the image, scores (n,) and
            labels (n,).
        """
        prepared = [self.prepare(image) for image in images]
        batch = {key: [sample[key] for sample in prepared] for key in ("inputs", "data_samples")}
        with torch.inference_mode():
            if self._to_fuse:
                self._fuse(batch)
            samples = self.predictor.test_step(batch)
        results = [sample.pred_instances.cpu().numpy() for sample in samples]
        return [(result.bboxes.reshape(-1, 4), result.scores, result.labels) for result in results]

    def _fuse(self, batch: dict) -> None:
        try:
            self.predictor = fused_twin(self.model, batch)
        except MixDetError as error:
            warnings.warn(f"the detector predicts without fusing: {error}", stacklevel=4)
        self._to_fuse = False

    def prepare(self, image: np.ndarray) -> dict[str, Any]:
        """Run the test pipeline on an RGB image (H, W, 3). Return `inputs` and `data_samples`."""
        results = {"img": np.ascontiguousarray(image[..., ::-1]), "img_id": 0}
        for step in self.steps:
            results = step(results)
        return results


def _read_config(name: str, meta: dict, config: str | os.PathLike | None, trust: bool) -> Config:
    if config is not None:
        return read_config(config)
    if not isinstance(meta.get("cfg"), str):
        raise MixDetError(f"{name} does not hold its config: name the config file with --config")
    if trust:
        return name_types(Config.fromstring(meta["cfg"], ".py"))
    try:
        return Config(parse_config(meta["cfg"], registered_name))
    except ValueError as error:
        raise MixDetError(
            f"{name}: its config would run code ({error}): name a config file with --config, or "
            "use --trust-checkpoint if you trust its source"
        ) from error


def _take_trained_size(cfg: Config, trained: Config | None, warn: bool) -> None:
    """Copy the size and the anchors of `trained`, the config in the checkpoint, to `cfg`."""
    trained_wh, wh = trained and input_wh(trained), input_wh(cfg)
    if trained_wh is None or wh is None or trained_wh == wh:
        return
    if warn:
        warnings.warn(
            f"the checkpoint was trained with images of {width_x_height(trained_wh)}, and the "
            f"config has {width_x_height(wh)}: the detector takes {width_x_height(trained_wh)}",
            stacklevel=3,
        )
    set_input_size(cfg, trained_wh)
    # `set_input_size` scaled the anchors, but the checkpoint may have been trained with other ones
    heads = [c.model.get("bbox_head") or {} for c in (cfg, trained)]
    anchors, trained_anchors = (head.get("anchor_generator") or {} for head in heads)
    if anchors and anchors.get("type") == trained_anchors.get("type"):
        heads[0]["anchor_generator"] = trained_anchors


def _from_array(pipeline: Sequence[dict]) -> list[dict]:
    """Return a test pipeline that takes an array instead of a file and loads no annotations."""
    steps = []
    for step in pipeline:
        kind = getattr(step["type"], "__name__", step["type"]).split(".")[-1]
        if kind == "LoadImageFromFile":
            options = {key: step[key] for key in ("to_float32",) if key in step}
            steps.append({"type": "mmdet.LoadImageFromNDArray", **options})
        elif not kind.startswith("LoadAnnotations"):
            steps.append(step)
    return steps


def _class_names(meta: dict, cfg: Config) -> tuple[str, ...]:
    """Return the class names in the checkpoint, or else in the config's test data set."""
    metainfo = {key.lower(): value for key, value in meta.get("dataset_meta", {}).items()}
    if "classes" not in metainfo:
        dataset = cfg.get("test_dataloader", {}).get("dataset", {})
        dataset_class = DATASETS.get(dataset["type"]) if "type" in dataset else None
        metainfo = dataset.get("metainfo") or getattr(dataset_class, "METAINFO", {})
    return tuple(metainfo.get("classes", ()))
