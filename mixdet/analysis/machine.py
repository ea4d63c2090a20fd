"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

DISTRIBUTIONS = ("torch", "torchvision", "mmengine", "mmdet", "mmcv", "mmcv-lite", "numpy")


def machine() -> dict[str, object]:
    """Processor, cores that this process may use, load when asked, GPU, and versions."""
    import cv2
    import torch

    versions = {"python": platform.python_version(), "opencv": cv2.__version__}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # mmcv goes by either name
    return {
        "processor": processor(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "versions": versions,
    }


def describe(found: dict[str, object]) -> str:
    """A machine in two lines."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    gpu = f", {found['gpu']}" if found["gpu"] else ""
    load = f", load {found['load']} at the start" if found["load"] is not None else ""
    return f"{found['processor']}, {found['cores']} cores{gpu}{load}\n{versions}"


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The model's name; `platform` knows only the architecture on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
