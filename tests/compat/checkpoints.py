"""Checkpoints and runs for the tests of `mixdet.compat.checkpoint`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mixdet.compat.prepared

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn


class Payload:
    """An object whose unpickling calls a function, such as `os.mkdir`, with a folder."""

    def __init__(self, folder: Path, call: Callable) -> None:
        self.folder, self.call = folder, call

    def __reduce__(self) -> tuple:
        return self.call, (str(self.folder),)


class Data(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.metainfo = {"palette": np.arange(6).reshape(2, 3), "n": np.float64(0.5)}

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((3,), float(index))


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))

    def forward(self, *inputs: torch.Tensor, mode: str = "loss") -> dict:
        return {"loss": self.layers(torch.stack(inputs)).square().mean()}


def make_runner(folder: Path, name: str, **options) -> Runner:
    return Runner(
        model=Model(),
        work_dir=str(folder),
        experiment_name=name,
        train_dataloader={
            "dataset": Data(),
            "batch_size": 2,
            "sampler": {"type": "DefaultSampler"},
        },
        train_cfg={"by_epoch": True, "max_epochs": 2},
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.1}},
        param_scheduler=[
            {"type": "OneCycleLR", "eta_max": 0.1, "total_steps": 10, "by_epoch": False},
            {"type": "CosineAnnealingLR", "T_max": 4},
        ],
        custom_hooks=[{"type": "EMAHook"}],
        default_hooks={"checkpoint": {"type": "CheckpointHook", "published_keys": ["state_dict"]}},
        log_level="ERROR",
        default_scope="mmdet",  # mmengine keeps this scope for the later tests of the process
        **options,
    )
