"""`detectors`: train and run each kind of detector that mmdet ships, on MixNet-S.

One config is taken from each folder of mmdet's `configs`, and some more whose operators differ. Its
backbone becomes a MixNet-S with random weights. The detector computes losses and their gradients
for two images, then detects in them. Nothing is timed.
"""

from __future__ import annotations

import copy
import gc
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mixdet.plugin

import mmdet
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs, demo_mm_proposals
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmengine.utils import import_modules_from_strings

from mixdet.errors import MixDetError, one_line
from mixdet.machine import machine_record
from mixdet.visual.tables import text_table

CONFIGS = Path(mmdet.__path__[0], ".mim", "configs")
# Folders without a detector that learns from annotated images alone, and the reason
LEFT_OUT = {
    **dict.fromkeys(("_base_", "common", "dsdl"), "no detector"),
    **dict.fromkeys(("bytetrack", "deepsort", "masktrack_rcnn", "mask2former_vis"), "tracking"),
    **dict.fromkeys(("ocsort", "qdtrack", "reid", "sort", "strongsort"), "tracking"),
    **dict.fromkeys(("glip", "grounding_dino", "mm_grounding_dino"), "needs a language model"),
    **dict.fromkeys(("lad", "ld"), "needs the weights of a teacher"),
    "soft_teacher": "needs unlabeled images",
    "misc": "wraps a detector of Detectron2",
}
MORE = (
    "carafe/faster-rcnn_r50_fpn-carafe_1x_coco",
    "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco",
    "cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco",
    "centernet/centernet-update_r50_fpn_8xb8-amp-lsj-200e_coco",
    "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco",
    "faster_rcnn/faster-rcnn_r50_fpn_soft-nms_1x_coco",
    "guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco",
    "pascal_voc/faster-rcnn_r50-caffe-c4_ms-18k_voc0712",
    "pisa/faster-rcnn_r50_fpn_pisa_1x_coco",
    "rtmdet/rtmdet-ins_tiny_8xb32-300e_coco",
    "tood/tood_r101-dconv-c3-c5_fpn_ms-2x_coco",
    "vfnet/vfnet_r50-mdconv-c3-c5_fpn_ms-2x_coco",
)
TAPS = ("stage2", "stage3", "stage5", "stage6")  # strides 4, 8, 16, 32
# Pixels of an image. SSD's layers without padding need 300. DINO chooses 900 among the cells of the
# feature maps.
SIDE, DETR_SIDE, SSD_SIDE = 64, 256, 300
BOXES = 4  # of an image


def shipped_configs() -> list[str]:
    """Return the configs: of each folder the one with the shortest name, then those in `MORE`."""
    chosen = []
    for folder in sorted(path for path in CONFIGS.iterdir() if path.name not in LEFT_OUT):
        files = [file for file in folder.glob("*.py") if not file.stem.endswith("_tta")]
        if files:
            shortest = min(files, key=lambda file: (len(file.name), file.name))
            chosen.append(f"{folder.name}/{shortest.stem}")
    return sorted([*chosen, *MORE])


def measure(only: Sequence[str] = ()) -> dict[str, object]:
    """Try the detectors, and print a line for each of them.

    Args:
        only: Folders or configs, such as 'atss' or 'atss/atss_r50_fpn_1x_coco'. Default: all.

    Returns:
        machine, settings and detectors. A detector has its config, its classes, and the errors of
        training and of prediction, which are empty if they worked.

    Raises:
        MixDetError: `only` names no config.
    """
    configs = [
        name
        for name in shipped_configs()
        if not only or name in only or name.partition("/")[0] in only
    ]
    if not configs:
        raise MixDetError(f"--only {' '.join(only)}: none of them is a folder of {CONFIGS}")
    rows = []
    for name in configs:
        rows.append(try_detector(name))
        print(name, rows[-1]["training"] or rows[-1]["prediction"] or "ok", file=sys.stderr)
    return {
        "kind": "detectors",
        "machine": machine_record(),
        "settings": {"backbone": "MixNet-S", "images": 2, "left_out": LEFT_OUT},
        "detectors": rows,
    }


def try_detector(name: str) -> dict[str, str]:
    """Train and run a detector.

    Args:
        name: A config, such as 'atss/atss_r50_fpn_1x_coco'.

    Returns:
        The config, the classes of detector and head, and the errors.
    """
    config = Config.fromfile(CONFIGS / f"{name}.py", import_custom_modules=False)
    modules = config.get("custom_imports", {}).get("imports", [])
    import_modules_from_strings(modules, allow_failed_imports=True)  # a backbone's may be missing
    model_config = config.model
    heads = [model_config[key]["type"] for key in model_config if key.endswith("_head")]
    row = {"config": name, "detector": model_config["type"], "heads": ", ".join(heads)}
    row |= {"training": "", "prediction": ""}
    step = "training"
    MMLogger.get_current_instance().setLevel("ERROR")  # mmengine logs each initialized weight
    with DefaultScope.overwrite_default_scope("mmdet"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.manual_seed(0)
            model = build_on_mixnet(model_config)
            data = batch_for(model_config, model)
            check_training(model, data)
            step = "prediction"
            check_prediction(model, data)
        except Exception as error:  # the result is which detectors fail, and how
            row[step] = one_line(error)
    gc.collect()  # some detectors refer to themselves
    return row


def build_on_mixnet(model: ConfigDict) -> torch.nn.Module:
    """Build a detector with MixNet-S instead of its own backbone."""
    detector = MODELS.build(on_mixnet(model))
    detector.init_weights()
    return revert_sync_batchnorm(detector)  # SyncBN needs a GPU


def on_mixnet(model: ConfigDict) -> ConfigDict:
    """Return a config in which MixNet-S is the backbone, and the neck refers to its channels."""
    model = copy.deepcopy(model)
    for node in _dicts(model):
        if isinstance(node.get("init_cfg"), dict) and "checkpoint" in node.init_cfg:
            node.init_cfg = None  # weights would be downloaded
        if "pretrained" in node:
            node.pretrained = None
        if node.get("type") == "MMSyncBN":  # cannot be built without a process group
            node.type = "SyncBN"
    model.data_preprocessor.pop("batch_augments", None)  # they enlarge the images
    old, necks = model.backbone, model.get("neck")
    neck = necks[0] if isinstance(necks, list) else necks
    taps: Sequence[str] = TAPS
    if neck is None and "panoptic_head" in model:
        model.panoptic_head.in_channels = "backbone"
    elif neck is None:
        # The heads take the channels of the old backbone: Hourglass gives 256 at stride 4, once for
        # each stack. ResNet gives 1024 at stride 16.
        stacks = old.get("num_stacks")
        taps = ("stage2",) if stacks else ("stage5",)
        model.neck = dict(
            type="ChannelMapper",
            in_channels="backbone",
            out_channels=256 if stacks else 1024,
            kernel_size=1,
        )
        if stacks:
            model.bbox_head.num_feat_levels = 1
    elif neck["type"] == "SSDNeck":
        taps = ("stage3", "stage5")
        neck.in_channels, neck.out_channels = "backbone", [40, 120, *neck.out_channels[2:]]
        model.bbox_head.in_channels = "neck"
    elif neck["type"] == "YOLOV3Neck":
        taps, neck.in_channels = TAPS[1:], "backbone[::-1]"
    elif isinstance(neck["in_channels"], int):
        taps, neck.in_channels = TAPS[-1:], "backbone[-1]"
    else:
        taps, neck.in_channels = TAPS[-len(neck["in_channels"]) :], "backbone"
    model.backbone = dict(type="MixNet", arch="s", taps=taps)
    return model


def batch_for(config: ConfigDict, model: torch.nn.Module) -> dict[str, Any]:
    """Return a preprocessed batch of two images, with the annotations that the config asks for."""
    side = DETR_SIDE if "num_queries" in config else SIDE
    side = SSD_SIDE if "SSDNeck" in str(config.get("neck")) else side
    text = str(config).lower()
    shapes = [(3, side, side)] * 2
    data = demo_mm_inputs(
        2,
        shapes,
        num_items=[BOXES, BOXES],
        # An RPN has one class, but the function needs two. The RPN does not read the labels.
        num_classes=min(filter(lambda n: n > 1, _values(config, "num_classes")), default=2),
        with_mask="mask" in text,
        with_semantic="semantic" in text or "panoptic" in text,
    )
    if config["type"] == "FastRCNN":
        proposals = demo_mm_proposals(shapes, 100)
        for sample, proposal in zip(data["data_samples"], proposals, strict=True):
            sample.proposals = proposal
    return model.data_preprocessor(data, True)


def check_training(model: torch.nn.Module, data: dict[str, Any]) -> None:
    """Compute losses and gradients.

    Raises:
        MixDetError: The loss or a gradient of the backbone is not finite, or there is no gradient.
    """
    model.train()
    hub = MessageHub.get_current_instance()
    for name in ("iter", "epoch"):  # BoxInst reads what a runner would set
        hub.update_info(name, 0)
    loss, _ = model.parse_losses(model(**copy.deepcopy(data), mode="loss"))
    loss.backward()
    gradients = [p.grad for p in model.backbone.parameters() if p.grad is not None]
    total = sum(float(gradient.abs().sum()) for gradient in gradients)
    if not (math.isfinite(loss.item()) and math.isfinite(total) and total > 0):
        raise MixDetError(f"loss {loss.item()}, gradients of the backbone {total}")


def check_prediction(model: torch.nn.Module, data: dict[str, Any]) -> None:
    """Detect in each image by itself, since mmdet's guided anchoring takes no batches here.

    Raises:
        MixDetError: The results have no detections, or scores that are not finite.
    """
    model.eval()
    for index in range(len(data["data_samples"])):
        image = {key: values[index : index + 1] for key, values in data.items()}
        with torch.no_grad():
            (sample,) = model(**copy.deepcopy(image), mode="predict")
        instances = sample.get("pred_instances")
        if instances is None and "pred_panoptic_seg" not in sample:
            raise MixDetError("the results have no detections")
        if instances is not None and not torch.isfinite(instances.scores).all():
            raise MixDetError("some scores are not finite")


def _dicts(node: Any) -> Iterator[dict]:
    """Yield all dicts of a config."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _dicts(child)


def _values(config: dict, key: str) -> list[Any]:
    return [node[key] for node in _dicts(config) if key in node]


def table(record: dict, markdown: bool = False) -> str:
    """Lay out a record: how many detectors work, each detector, and the folders left out."""
    rows = record["detectors"]
    cells = []
    for row in rows:
        trains, detects = row["training"] or "yes", row["prediction"] or "yes"
        cells.append([row["config"], row["detector"], trains, "" if row["training"] else detects])
    text = text_table(["config of mmdet", "detector", "trains", "detects"], cells, markdown)
    working = sum(not (row["training"] or row["prediction"]) for row in rows)
    folders: dict[str, list[str]] = {}
    for folder, reason in record["settings"]["left_out"].items():
        folders.setdefault(reason, []).append(folder)
    left_out = "; ".join(f"{reason} ({', '.join(names)})" for reason, names in folders.items())
    return (
        f"{working} of {len(rows)} detectors train and detect.\n\n{text}\n\n"
        f"Folders left out: {left_out}."
    )
