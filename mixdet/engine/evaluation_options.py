"""Apply the options of a test to its config: files of results, drawn images, augmentation."""

from __future__ import annotations

import copy
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mixdet.errors import MixDetError
from mixdet.outputs import writable_file, writable_folder

PICKLES = (".pkl", ".pickle")
FLIP_KEYS = ("flip", "flip_direction")  # with these mmdet mirrors the boxes back
META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")


def set_results_file(cfg: Config, path: str) -> None:
    """Let the test write the detections to a file, in place.

    Args:
        cfg: The config.
        path: A `.pkl` or `.pickle` file gets what mmdet's `tools/test.py --out` writes, which
            mmdet's tools of analysis read: a list with a dict for each image. Any other file gets
            COCO results.

    Raises:
        MixDetError: The file cannot be written. Or it is not a pickle, and the config has no
            `CocoDetectionMetric`.
    """
    file = str(writable_file("--out", path))
    metrics = _metrics(cfg)
    if Path(path).suffix.lower() in PICKLES:
        cfg.test_evaluator = [*metrics, {"type": "DumpDetResults", "out_file_path": file}]
        return
    for metric in _coco_metrics(cfg, "--out", "writes detections as COCO results"):
        metric["results_file"] = file


def set_report(cfg: Config, **settings: object) -> None:
    """Change settings of the `ReportHook`, in place. The config need not have the hook."""
    hooks = dict(cfg.get("default_hooks") or {})
    hooks["report"] = {**(hooks.get("report") or {}), "type": "ReportHook", **settings}
    cfg.default_hooks = hooks


def set_drawings(cfg: Config, folder: str) -> None:
    """Let the test draw every image with its true and its predicted boxes, in place.

    Args:
        cfg: The config.
        folder: Folder for the images.

    Raises:
        MixDetError: The folder cannot be written, or the config has no `CocoDetectionMetric`.
    """
    _coco_metrics(cfg, "--show-dir", "writes the detections that are drawn")
    set_report(cfg, drawings=str(writable_folder("--show-dir", folder)))


def augment_test(cfg: Config) -> str:
    """Test with several versions of each image, and merge their boxes (test-time augmentation).

    The config is changed in place. `tta_model` and `tta_pipeline` of the config say how, as for
    mmdet's tool. Without them, the image and its mirror image are taken, and their boxes are merged
    by the model's NMS.

    Args:
        cfg: The config.

    Returns:
        A warning for the log; empty if there is none.

    Raises:
        MixDetError: The test pipeline does not end with a transform that packs the image.
    """
    warning = ""
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:  # a wrapper, such as RepeatDataset
        dataset = dataset.dataset
    if "tta_pipeline" not in cfg:
        *steps, pack = copy.deepcopy(dataset.pipeline)
        name = pack["type"] if isinstance(pack["type"], str) else pack["type"].__name__
        if not name.startswith("Pack"):
            raise MixDetError(
                f"--tta: the test pipeline ends with {name}, but must end with a transform that "
                "packs the image: set tta_pipeline in the config"
            )
        pack["meta_keys"] = (*pack.get("meta_keys", META_KEYS), *FLIP_KEYS)
        flips = [{"type": "RandomFlip", "prob": probability} for probability in (0.0, 1.0)]
        cfg.tta_pipeline = [*steps, {"type": "TestTimeAug", "transforms": [flips, [pack]]}]
        if "flip" not in str(cfg.get("train_dataloader", "flip")).lower():
            warning = (
                "--tta tests mirror images, but the training mirrors none, so the scores may be "
                "lower: set tta_pipeline in the config"
            )
    if "tta_model" not in cfg:
        cfg.tta_model = {"type": "DetTTAModel", "tta_cfg": _merging(cfg.model)}
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline
    return warning


def _merging(model: ConfigDict) -> dict:
    """Return the NMS and the number of detections of a model's test settings, or mmdet's own."""
    settings = model.get("test_cfg") or {}
    settings = settings.get("rcnn") or settings
    return {
        "nms": settings.get("nms") or {"type": "nms", "iou_threshold": 0.5},
        "max_per_img": settings.get("max_per_img", 100),
    }


def _metrics(cfg: Config) -> list[dict]:
    evaluator = cfg.test_evaluator
    return list(evaluator) if isinstance(evaluator, (list, tuple)) else [evaluator]


def _coco_metrics(cfg: Config, option: str, purpose: str) -> list[dict]:
    metrics = [metric for metric in _metrics(cfg) if metric["type"] == "CocoDetectionMetric"]
    if not metrics:
        raise MixDetError(
            f"{option}: only a CocoDetectionMetric {purpose}: add one to test_evaluator"
        )
    return metrics
