"""Checkpoints of shipped detectors with random weights."""

from __future__ import annotations

from pathlib import Path

import mixdet.plugin

import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from mixdet.config.shipped import find_config
from mixdet.digit_scenes.drawing import CLASSES


def save_untrained(file: Path, config: str = "ssdlite_mixnet_s_digits", **backbone: object) -> Path:
    """Save a detector with random weights and the digit classes; return the file.

    Args:
        file: The checkpoint to write.
        config: Name of a shipped config.
        **backbone: Arguments of the backbone that replace those of the config.
    """
    cfg = Config.fromfile(find_config(config))
    cfg.model.backbone.update(backbone)
    torch.manual_seed(0)
    meta = {"cfg": cfg.pretty_text, "dataset_meta": {"classes": tuple(CLASSES)}}
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"meta": meta, "state_dict": MODELS.build(cfg.model).state_dict()}, file)
    return file
