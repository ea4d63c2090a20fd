"""Configs, checkpoints, exported folders and work folders of commit e20e1a9 still load.

The texts, keys and digests in this file are copied from what that commit wrote.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from inspect import signature

import mixdet.plugin

import mmdet.registry
import mmengine.registry
import numpy as np
import onnx
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from onnx import TensorProto, helper, numpy_helper

from mixdet import launch
from mixdet.config.plain import parse_config
from mixdet.config.shipped import find_config
from mixdet.inference import Detector
from tests.conftest import ROOT
from tests.tiny import CLASSES

# The config that a checkpoint of ssdlite_mixnet_s_digits holds, changed to the tiny data set
CONFIG = """
auto_scale_lr = dict(base_batch_size=8, enable=False)
custom_imports = dict(allow_failed_imports=False, imports=['mixdet.plugin'])
default_hooks = dict(
    checkpoint=dict(
        interval=1, max_keep_ckpts=3, rule='greater', save_best='coco/bbox_mAP',
        type='SafeCheckpointHook'),
    checkpoint_fit=dict(type='CheckpointFitHook'),
    data_check=dict(type='DataCheckHook'),
    finite_loss=dict(type='FiniteLossHook'),
    fuse=dict(type='FuseHook'),
    interrupt=dict(type='InterruptHook'),
    keep_memory=dict(type='KeepMemoryHook'),
    logger=dict(interval=50, type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    report=dict(type='ReportHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    seed_iteration=dict(type='SeedIterationHook'),
    sync_buffers=dict(type='SyncBuffersHook'),
    timer=dict(type='IterTimerHook'),
    total_batch=dict(type='TotalBatchHook'),
    visualization=dict(type='DetVisualizationHook'))
default_scope = 'mmdet'
env_cfg = dict(
    cudnn_benchmark=True, dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
load_from = None
log_level = 'INFO'
log_processor = dict(by_epoch=True, type='LogProcessor', window_size=50)
model = dict(
    backbone=dict(
        arch='s', norm_cfg=dict(momentum=0.1, type='BN'),
        taps=('stage4.expansion', 'stage5'), type='MixNet'),
    bbox_head=dict(
        act_cfg=dict(type='ReLU6'),
        anchor_generator=dict(
            base_sizes=[18, 36, 72], ratios=[1.55], scales=[1.0, 1.26, 1.59],
            type='AnchorGenerator'),
        bbox_coder=dict(
            target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2],
            type='DeltaXYWHBBoxCoder'),
        init_cfg=dict(layer='Conv2d', std=0.01, type='Normal'),
        kernel_sizes=[(3, 5, 7), (3, 5, 7), (3, 5)],
        norm_cfg=dict(eps=0.001, momentum=0.1, type='BN'),
        num_classes=2,
        type='MixConvSSDHead'),
    data_preprocessor=dict(
        bgr_to_rgb=True, mean=[123.675, 116.28, 103.53], pad_size_divisor=1,
        std=[58.395, 57.12, 57.375], type='BatchedDetDataPreprocessor'),
    input_size=160,
    neck=dict(
        act_cfg=dict(type='ReLU6'), extra_channels=(128,),
        init_cfg=dict(layer='Conv2d', std=0.03, type='TruncNormal'), l2_norm_scale=None,
        level_paddings=(1,), level_strides=(2,), norm_cfg=dict(eps=0.001, momentum=0.1, type='BN'),
        type='SSDNeck', use_depthwise=True),
    test_cfg=dict(
        max_per_img=100, min_bbox_size=0, nms=dict(iou_threshold=0.45, type='nms'), nms_pre=1000,
        score_thr=0.02),
    train_cfg=dict(
        allowed_border=-1,
        assigner=dict(
            gt_max_assign_all=False, ignore_iof_thr=-1, min_pos_iou=0.0, neg_iou_thr=0.5,
            pos_iou_thr=0.5, type='MaxIoUAssigner'),
        debug=False, neg_pos_ratio=3, pos_weight=-1, sampler=dict(type='PseudoSampler')),
    type='SSDLite')
optim_wrapper = dict(
    clip_grad=dict(max_norm=10),
    optimizer=dict(fused=True, lr=0.006, type='AdamW', weight_decay=0.05), type='OptimWrapper')
param_scheduler = [
    dict(begin=0, by_epoch=False, end=100, start_factor=0.01, type='LinearLR'),
    dict(by_epoch=True, convert_to_iter_based=True, eta_min_ratio=0.01, type='CosineAnnealingLR'),
]
randomness = dict(seed=0)
resume = False
test_cfg = dict(type='TestLoop')
train_cfg = dict(max_epochs={epochs}, type='ResumableTrainLoop', val_interval=2)
train_dataloader = dict(
    batch_size=7, collate_fn=dict(type='packed_collate'),
    dataset=dict(
        ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/'),
        data_root='{data_root}', filter_cfg=dict(filter_empty_gt=False), max_broken=0.01,
        metainfo=dict(classes=('dark', 'bright')),
        pipeline=[
            dict(type='SeedSample'),
            dict(
                expand_ratio=(1, 4), fill=[123.675, 116.28, 103.53], flip_prob=0.5,
                min_crop_size=0.3, min_ious=(0.1, 0.3, 0.5, 0.7, 0.9),
                photometric=dict(
                    brightness_delta=32, contrast_range=(0.5, 1.5), hue_delta=18,
                    saturation_range=(0.5, 1.5)),
                scale=(160, 160), type='SSDRandomCrop'),
            dict(type='PackChannelsLast'),
        ],
        type='SafeCocoDataset'),
    drop_last=True, num_workers=0, sampler=dict(shuffle=True, type='SeededSampler'))
val_cfg = dict(type='ValLoop')
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(
    name='visualizer', type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
work_dir = '{work_dir}'
"""

# The rest of the config: once with `val` and once with `test` in place of SPLIT
SPLIT = """
SPLIT_dataloader = dict(
    batch_size=16, collate_fn=dict(type='packed_collate'),
    dataset=dict(
        ann_file='annotations/instances_val2017.json', data_prefix=dict(img='val2017/'),
        data_root='{data_root}', max_broken=0.01, metainfo=dict(classes=('dark', 'bright')),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(keep_ratio=False, scale=(160, 160), type='Resize'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
                type='PackChannelsLast'),
        ],
        test_mode=True, type='SafeCocoDataset'),
    drop_last=False, num_workers=0, sampler=dict(shuffle=False, type='DefaultSampler'))
SPLIT_evaluator = dict(
    ann_file='{data_root}/annotations/instances_val2017.json', type='CocoDetectionMetric')
"""


def config_text(folder, data_root, epochs=1) -> str:
    """Return the config's text with the data set, the epochs and a work folder filled in."""
    text = CONFIG + "".join(SPLIT.replace("SPLIT", split) for split in ("val", "test"))
    values = {"data_root": data_root, "work_dir": folder / "work", "epochs": epochs}
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", str(value))
    return text


@pytest.fixture
def old_checkpoint(tmp_path, images):
    """A checkpoint that was written after the first of two epochs."""
    text = config_text(tmp_path, images, epochs=2)
    torch.manual_seed(0)
    model = MODELS.build(Config(parse_config(text)).model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.006, weight_decay=0.05, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = 0.006
    scalar = {
        "log_history": torch.tensor([7.5, 6.9], dtype=torch.float64),
        "count_history": torch.tensor([1, 1]),
        "max_length": 1000000,
    }
    content = {
        "meta": {
            "epoch": 1,
            "iter": 2,
            "cfg": text,
            "seed": 0,
            "experiment_name": "old_20261130_062843",
            "time": "20261130_062847",
            "mmengine_version": "0.10.7",
            "dataset_meta": {"classes": CLASSES, "palette": [(220, 20, 60), (119, 11, 32)]},
        },
        "state_dict": model.state_dict(),
        "message_hub": {
            "log_scalars": {"train/loss": scalar},
            "runtime_info": {
                "cfg": text,
                "epoch": 0,
                "iter": 1,
                "max_epochs": 2,
                "max_iters": 4,
                "epoch_begun": {"epoch": 0, "iter": 0, "batches": [2, 7, 1]},
            },
            "resumed_keys": {"train/loss": True, "epoch": True},
        },
        "optimizer": optimizer.state_dict(),
    }
    torch.save(content, tmp_path / "epoch_1.pth")
    return tmp_path / "epoch_1.pth"


def test_an_old_checkpoint_predicts(old_checkpoint, images):
    detections = Detector(old_checkpoint)(images / "val2017" / "1.png")
    assert len(detections) > 0
    assert set(detections.names) <= set(CLASSES)


def test_an_old_checkpoint_can_be_tested_and_resumed(old_checkpoint, images, tmp_path, quick):
    config = tmp_path / "old.py"
    config.write_text(config_text(tmp_path, images, epochs=2))
    assert 0 <= launch.evaluate(str(config), str(old_checkpoint))["coco/bbox_mAP"] <= 1
    launch.train(str(config), resume=str(old_checkpoint))
    written = torch.load(tmp_path / "work" / "epoch_2.pth", weights_only=True)
    assert (written["meta"]["epoch"], written["meta"]["iter"]) == (2, 4)
    history = written["message_hub"]["log_scalars"]["train/loss"]["log_history"]
    assert history[:2].tolist() == [7.5, 6.9]


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("ssdlite_mixnet_s_digits", "ba478d3245bfde0f"),
        ("ssdlite_mobilenet_v2_digits", "5b0331712fba9c2c"),
        ("ssdlite_mobilenet_v1_mix357_digits", "f1dc836ef2fd70f5"),
        ("ssdlite_mixnet_l_tf_coco", "538db901e714a2a0"),
        ("retinanet_mixnet_m_fpn_coco", "e16055ac0e8b8e76"),
    ],
)
def test_weights_keep_their_names_shapes_and_order(name, digest):
    """In another order, a resumed optimizer would assign its state to the wrong weights."""
    model = MODELS.build(Config.fromfile(find_config(name)).model)
    weights = [f"{key} {tuple(value.shape)}" for key, value in model.state_dict().items()]
    assert hashlib.sha256("\n".join(weights).encode()).hexdigest()[:16] == digest


# The names that e20e1a9 registered, each with the arguments that an old config may set
REGISTERED = {
    "DATASETS": {
        "SafeCocoDataset": "max_broken max_bytes max_pixels",
        "DigitScenes": "data_root ann_file data_prefix",
    },
    "DATA_SAMPLERS": {"SeededSampler": "dataset shuffle seed round_up"},
    "TRANSFORMS": {
        "PackChannelsLast": "meta_keys",
        "SeedSample": "",
        "SSDRandomCrop": "scale expand_ratio expand_prob fill min_ious min_crop_size flip_prob "
        "photometric backend_args",
    },
    "FUNCTIONS": {"packed_collate": ""},
    "MODELS": {
        "MixNet": "arch taps padding frozen_stages norm_eval with_cp norm_cfg act_cfg init_cfg",
        "MixMobileNetV1": "kernel_sizes widen_factor taps",
        "MixMobileNetV2": "kernel_sizes widen_factor taps",
        "BatchedDetDataPreprocessor": "photometric",
        "MixConvSSDHead": "num_classes in_channels kernel_sizes split padding loss_cls loss_bbox "
        "norm_cfg act_cfg",
        "SSDLite": "backbone neck bbox_head train_cfg test_cfg data_preprocessor input_size "
        "channels_last init_cfg",
    },
    "TASK_UTILS": {"TFSSDAnchorGenerator": "strides input_size min_scale max_scale"},
    "WEIGHT_INITIALIZERS": {"TimmPretrained": "model checkpoint"},
    "METRICS": {
        "CocoDetectionMetric": "ann_file results_file classwise backend backend_args "
        "collect_device prefix",
    },
    "OPTIM_WRAPPERS": {"CpuAmpOptimWrapper": ""},
    "LOOPS": {"ResumableTrainLoop": ""},
    "HOOKS": {
        "CheckpointFitHook": "",
        "CudaGraphHook": "",
        "DataCheckHook": "",
        "FiniteLossHook": "",
        "FuseHook": "",
        "InterruptHook": "",
        "KeepMemoryHook": "",
        "ReportHook": "sheet",
        "ResumableEarlyStoppingHook": "monitor rule min_delta strict check_finite patience "
        "stopping_threshold",
        "SafeCheckpointHook": "backend_args",
        "SeedIterationHook": "",
        "TotalBatchHook": "",
    },
}


@pytest.mark.parametrize("registry", REGISTERED)
def test_names_and_arguments_of_old_configs_are_registered(registry):
    in_mmdet = getattr(mmdet.registry, registry, None)  # FUNCTIONS exists only in mmengine
    for name, arguments in REGISTERED[registry].items():
        registered = (in_mmdet or getattr(mmengine.registry, registry)).get(name)
        assert registered is not None, name
        missing = {*arguments.split()} - signature(registered).parameters.keys()
        assert not missing, (name, missing)


def onnx_network(kind: str, path) -> None:
    """Write an ONNX network that finds the same boxes in every image."""
    boxes = np.float32([[[8, 8, 40, 24], [9, 9, 41, 25], [30, 32, 62, 64]]])
    outputs = {"boxes": boxes, "scores": np.float32([[[0.9, 0], [0.8, 0], [0, 0.7]]])}
    if kind == "end2end":
        outputs = {
            "boxes": boxes[:, ::2],
            "scores": np.float32([[0.9, 0.7]]),
            "labels": np.int64([[0, 1]]),
        }
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
        for name, value in outputs.items()
    ]
    output_infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in outputs.items()
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 64, 64, 3])
    model = helper.make_model(
        helper.make_graph(nodes, "old", [image], output_infos),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(model, path)


@pytest.mark.parametrize("kind", ["raw", "end2end"])
def test_an_old_exported_folder_predicts(tmp_path, kind):
    onnx_network(kind, tmp_path / "model.onnx")
    digest = hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
    report = {
        "pictures": 14,
        "boxes": 40,
        "unmatched": 0,
        "box_difference": 1e-4,
        "score_difference": 1e-6,
        "mAP": 0.5,
        "mAP_torch": 0.5,
        "max_drop": 0.01,
    }
    manifest = {
        "format": 1,
        "kind": kind,
        "input": {
            "width": 64,
            "height": 64,
            "channels": "RGB",
            "dtype": "uint8",
            "layout": "NHWC",
            "resize": "bilinear, proportions not kept (cv2.INTER_LINEAR)",
        },
        "classes": ["dark", "bright"],
        "levels": [
            {"cells": [1, 2], "stride": [32.0, 32.0], "first": [[-8, -8, 8, 8]], "anchors": 2},
            {"cells": [1, 1], "stride": [64.0, 64.0], "first": [[0, 0, 8, 8]], "anchors": 1},
        ],
        "postprocess": {
            "score_thr": 0.02,
            "iou_thr": 0.45,
            "nms_pre": 1000,
            "max_per_img": 100,
            "min_bbox_size": 0,
        },
        "files": {"model.onnx": digest},
        "measured": {"onnx": report},
        "versions": {"mixdet": "0.1.0"},
        "config": CONFIG,
        "precision": "int8",
        "max_drop": 0.01,
        "calibration_pictures": 300,
    }
    (tmp_path / "mixdet.json").write_text(json.dumps(manifest, indent=1))
    detections = Detector(tmp_path)(np.zeros((128, 192, 3), np.uint8))
    assert detections.names == ["dark", "bright"]
    assert np.allclose(detections.boxes, [[24, 16, 120, 48], [90, 64, 186, 128]])
    assert np.allclose(detections.scores, [0.9, 0.7])


def test_an_old_comparison_is_reported(tmp_path):
    plan = {
        "configs": ["configs/ssdlite_mobilenet_v2_digits.py", "configs/ssdlite_mixnet_s_digits.py"],
        "seeds": [0, 1],
        "cfg_options": [],
        "data_root": None,
        "command": "python tools/compare.py --seeds 2",
    }
    sizes = ("", "_50", "_75", "_s", "_m", "_l")
    recalls = ("@1", "@10", "@100", "_s@100", "_m@100", "_l@100")
    runs, rows = [], {}
    for row, mean in (("ssdlite_mobilenet_v2_digits", 0.60), ("ssdlite_mixnet_s_digits", 0.70)):
        for seed in (0, 1):
            metrics = {f"coco/bbox_mAP{size}": mean + 0.01 * seed for size in sizes}
            metrics |= {f"coco/AR{recall}": mean for recall in recalls}
            runs.append(
                {
                    "row": row,
                    "seed": seed,
                    "fingerprint": "833dfe277e47da51d987e89665489f6f",
                    "metrics": metrics,
                    "curve": [[2, 0.3], [4, 0.5], [6, mean]],
                    "losses": [[50, 11.1], [100, 7.6]],
                    "seconds_per_iteration": 0.5,
                    "environment": {
                        "mixdet": "0.1.0",
                        "device": "AMD EPYC",
                        "cores": 2,
                        "threads": 1,
                    },
                }
            )
        rows[row] = {
            "params": 585959,
            "madds": 113550400,
            "input_size": [160, 160],
            "latency_ms": [13.4, 13.6, 13.8],
            "latency_of": "AMD EPYC, batch 1, 2 threads",
            "pictures_interval": None if row.endswith("v2_digits") else [0.1, 0.095, 0.105],
        }
    (tmp_path / "comparison.json").write_text(json.dumps(plan))
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    command = [sys.executable, "tools/compare.py", "--report", "--out", str(tmp_path)]
    done = subprocess.run([*command, "--images", "0"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, row = (line for line in done.stdout.splitlines() if line.startswith("| ssdlite_"))
    assert "| 70.5" in row
    assert "+10.0 [+9.5, +10.5]" in row  # the difference in mAP, with its interval over images
