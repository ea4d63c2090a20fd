"""Describe the machine and the package versions that a measurement is made with."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from mixdet import __version__

# Instructions of x86 and Arm that decide how fast float32, bfloat16 and 8-bit networks run. The
# keys are names in Linux's /proc/cpuinfo. The values are the usual names.
INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx_vnni": "VNNI",
    "avx512_bf16": "bfloat16",
    "amx_tile": "AMX",
    "asimddp": "dot products",
    "bf16": "bfloat16",
    "sve": "SVE",
}
DISTRIBUTIONS = ("torch", "torchvision", "mmengine", "mmdet", "mmcv", "mmcv-lite", "numpy")


def machine_record() -> dict[str, object]:
    """Return a description for JSON: the processor, its cores and load, the GPU, the versions."""
    import cv2  # here, since the other functions need neither OpenCV nor torch
    import torch

    versions = {"mixdet": f"{__version__}{commit()}"}
    versions |= {"python": platform.python_version(), "opencv": cv2.__version__}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # only one of mmcv and mmcv-lite is installed
    return {
        "processor": processor(),
        "instructions": instructions(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "versions": versions,
    }


def commit() -> str:
    """Return " at COMMIT" in a checkout; return an empty string without a checkout or git."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    name = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f" at {name}" if name else ""


def describe(record: dict[str, object]) -> str:
    """Turn the result of `machine_record` into two lines of text."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    gpu = f", {record['gpu']}" if record["gpu"] else ""
    load = f", load {record['load']} at the start" if record["load"] is not None else ""
    names = f" with {', '.join(record['instructions'])}" if record["instructions"] else ""
    return f"{record['processor']}{names}, {record['cores']} cores{gpu}{load}\n{versions}"


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """Return the name of the processor."""
    # On Linux, `platform` knows the architecture only
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instructions() -> list[str]:
    """Return the usual names of the processor's instructions. The list is empty outside Linux."""
    flags = {*_cpuinfo("flags").split(), *_cpuinfo("Features").split()}
    names = [name for flag, name in INSTRUCTIONS.items() if flag in flags]
    return list(dict.fromkeys(names))  # without repeats: two flags can have the same usual name


def _cpuinfo(key: str) -> str:
    """Return a value of the first core in Linux's /proc/cpuinfo, or "" on other systems."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
