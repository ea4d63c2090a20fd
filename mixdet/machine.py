"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from mixdet import __version__

# What decides how fast float32, bfloat16 and 8 bits are: Linux's name, on x86 or Arm, and the usual
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


def machine() -> dict[str, object]:
    """Processor, its instructions, cores that this process may use, load, GPU, and versions."""
    import cv2
    import torch

    versions = {"mixdet": f"{__version__}{commit()}"}
    versions |= {"python": platform.python_version(), "opencv": cv2.__version__}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # mmcv goes by either name
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
    """Of a checkout " at " and what is checked out, where git says so; else nothing."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return ""
    asked = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return f" at {said}" if said else ""


def describe(found: dict[str, object]) -> str:
    """A machine in two lines."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    gpu = f", {found['gpu']}" if found["gpu"] else ""
    load = f", load {found['load']} at the start" if found["load"] is not None else ""
    # older records do not have them
    known = f" with {', '.join(found['instructions'])}" if found.get("instructions") else ""
    return f"{found['processor']}{known}, {found['cores']} cores{gpu}{load}\n{versions}"


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The model's name; `platform` knows only the architecture on Linux."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instructions() -> list[str]:
    """Those of `INSTRUCTIONS` that the processor has; none where there is no Linux to ask."""
    flags = {*_cpuinfo("flags").split(), *_cpuinfo("Features").split()}
    found = [name for flag, name in INSTRUCTIONS.items() if flag in flags]
    return list(dict.fromkeys(found))  # VNNI goes by two names


def _cpuinfo(key: str) -> str:
    """What Linux says of the first core, or nothing."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
