"""Analyze the errors of a config's detector from the file of its detections."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mixdet.config.data_paths import EVALUATORS, LOADERS, with_annotations
from mixdet.config.read import load_config
from mixdet.data_check.used_data import read_used_data
from mixdet.error_analysis.detector_errors import DetectorErrors, analyze_errors
from mixdet.errors import MixDetError
from mixdet.evaluation import ScoredData
from mixdet.evaluation.evaluators import BACKENDS

SPLITS = ("val", "test")


def analyze_config(
    config: str,
    detections: str | os.PathLike,
    *,
    split: str = "test",
    score_thr: float | None = None,
    data_root: str | None = None,
    cfg_options: Sequence[str] = (),
) -> tuple[DetectorErrors, dict[int | str, str]]:
    """Analyze detections on the validation or test images of a config.

    Args:
        config: Path of the config.
        detections: File of the detections as COCO results, which `tools/test.py` writes.
        split: 'val' or 'test'.
        score_thr: As in `analyze_errors`.
        data_root: Another folder for the data, in the same layout.
        cfg_options: `key=value` strings that override the config.

    Returns:
        The errors, and the file of each image by its id.

    Raises:
        MixDetError: The config, the data or the detections cannot be used.
    """
    results = read_results(detections)
    cfg = load_config(config, cfg_options, data_root=data_root)
    scored, image_files, backend = _scored_data(cfg, config, split)
    ap = scored.score(results, backend).per_class if scored.has_objects else None
    return analyze_errors(scored, results, score_thr=score_thr, ap=ap), image_files


def _scored_data(
    cfg: Config, config: str, split: str
) -> tuple[ScoredData, dict[int | str, str], str]:
    """Return what the metric of a split scores, the image files, and the metric's backend."""
    loader, evaluator = LOADERS[1 + SPLITS.index(split)], EVALUATORS[SPLITS.index(split)]
    (used,) = read_used_data(cfg, (loader,)) or (None,)
    if used is None or used.error or not used.parts:
        reason = used.error if used and used.error else "it is no CocoDataset on a local disk"
        raise MixDetError(f"{config}: {loader}.dataset cannot be analyzed: {reason}")
    metric = next((part for _, part in with_annotations(cfg, (evaluator,))), {})
    ann_file = metric.get("ann_file", used.parts[0].ann_file)
    image_ids = [number for part in used.parts for number in part.image_ids]
    paths = [path for part in used.parts for path in part.paths]
    scored = ScoredData.read(ann_file, used.parts[0].classes, image_ids, metric.get("backend_args"))
    return scored, dict(zip(image_ids, paths, strict=True)), metric.get("backend") or BACKENDS[0]


def read_results(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read a file of COCO results.

    Raises:
        MixDetError: The file cannot be read, or is not a list of detections.
    """
    remedy = "give the file that tools/test.py writes, test_detections.json in the work folder"
    try:
        results = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise MixDetError(f"{path}: cannot be read ({error.strerror}): {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise MixDetError(f"{path}: not JSON ({error}): {remedy}") from error
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise MixDetError(f"{path}: not a list of detections in COCO's results format: {remedy}")
    return results
