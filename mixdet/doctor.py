"""What is installed, what training would run on, which data are there, and what is wrong.

Behind `tools/doctor.py`. Nothing here needs torch or mmdet to be importable: a broken installation
is what it is for.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import mixdet

MODULES = (  # as they are imported; their distributions may have other names
    *("torch", "torchvision", "mmengine", "mmcv", "mmdet", "timm", "pycocotools"),
    *("numpy", "cv2", "sklearn", "skimage"),
)
COCO_LAYOUT = (
    "annotations/instances_train2017.json",
    "annotations/instances_val2017.json",
    "train2017",
    "val2017",
)
WEIGHTS = ("mixnet_s.ft_in1k", "mixnet_m.ft_in1k", "mixnet_l.ft_in1k", "mixnet_xl.ra_in1k")
INSTALL = "run `pip install -e .` in MixDet's checkout (or `make install`)"


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        section: Heading that it stands under.
        name: What was looked at.
        value: What was found.
        level: `ok`, `note` (something to know) or `problem` (prevents work).
        remedy: What to do about it; empty for `ok`.
    """

    section: str
    name: str
    value: str
    level: str = "ok"
    remedy: str = ""


def examine(folder: Path | None = None, online: bool = False) -> list[Check]:
    """Look at everything.

    Args:
        folder: Where `data/` is looked for; the working directory if None.
        online: Also ask Hugging Face whether the ImageNet weights can be had.

    Returns:
        The checks, in the order of the report.
    """
    data = (folder or Path()) / "data"
    parts: tuple[Callable[[], Iterator[Check]], ...] = (
        _versions,
        _operators,
        _devices,
        _runtimes,
        lambda: _data(data),
        lambda: _weights(online),
    )
    return [check for part in parts for check in part()]


def _versions() -> Iterator[Check]:
    section, recent = "versions", sys.version_info >= (3, 10)
    owners = _owners()
    try:
        yield Check(section, "mixdet", metadata.version("mixdet"))
    except metadata.PackageNotFoundError:
        value = f"{mixdet.__version__}, from a folder, not installed"
        yield Check(section, "mixdet", value, "note", INSTALL)
    yield Check(
        section,
        "python",
        sys.version.split()[0],
        "ok" if recent else "problem",
        "" if recent else "make an environment with Python 3.10 or newer",
    )
    for module in MODULES:
        yield _version(section, module, sorted(set(owners.get(module, ()))))


def _owners() -> Mapping[str, list[str]]:
    """Which distributions own a module."""
    # since Python 3.10: an older one must live to be told so
    return getattr(metadata, "packages_distributions", dict)()


def _version(section: str, module: str, owners: list[str]) -> Check:
    """Import one module; say its version and which distributions own it."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name == module
        value = "not installed" if missing else f"needs {error.name}, which is not installed"
        return Check(section, module, value, "problem", INSTALL)
    except Exception as error:  # a wrong version asserts, a wrong binary raises what it likes
        remedy = INSTALL
        if module == "cv2" and "lib" in str(error):
            remedy = "swap opencv-python for opencv-python-headless, which needs no display library"
        return Check(section, module, f"does not import: {_line(error)}", "problem", remedy)
    versions = [metadata.version(owner) + f" ({owner})" * (owner != module) for owner in owners]
    value = " and ".join(versions) or str(getattr(found, "__version__", "version unknown"))
    if module.startswith("mm") and len(owners) > 1:
        remedy = f"`pip uninstall {' '.join(owners)}`, then install one of them"
        return Check(section, module, f"{value} overwrite each other", "problem", remedy)
    return Check(section, module, value)


def _operators() -> Iterator[Check]:
    section, name = "operators", "nms"
    try:
        from mixdet import compat
        from mixdet.compat.mmcv_ops import which_nms

        compat.prepare()
        import torch
        from mmcv.ops import nms

        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except Exception as error:
        remedy = f"mend the versions above; a compiled mmcv must fit torch, else {INSTALL}"
        yield Check(section, name, f"does not run: {_line(error)}", "problem", remedy)
        return
    yield Check(section, name, which_nms())


def _devices() -> Iterator[Check]:
    section = "devices"
    available = getattr(os, "sched_getaffinity", None)
    cores = len(available(0)) if available else os.cpu_count()
    yield Check(section, "cores", str(cores))
    try:
        import torch
    except Exception:  # said under versions
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        device = torch.cuda.get_device_properties(index)
        memory = f"{device.total_memory / 2**30:.0f} GiB"
        yield Check(section, f"gpu {index}", f"{device.name}, {memory}, CUDA {torch.version.cuda}")
    if count:
        return
    if shutil.which("nvidia-smi"):
        value = f"nvidia-smi is there, but torch {torch.__version__} sees none"
        remedy = "install the torch build for this driver: https://pytorch.org/get-started/locally"
        yield Check(section, "gpu", value, "note", remedy)
    else:
        yield Check(section, "gpu", "none seen: training runs on the CPU")


def _runtimes() -> Iterator[Check]:
    """What can run exported files, which is seen without importing it."""
    try:
        from mixdet.inference.runtimes import PACKAGES
    except Exception:  # NumPy, said under versions
        return
    owners = _owners()
    for extra, module in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            value = f'not installed: pip install "mixdet[{extra}]"'
        else:
            found = sorted(set(owners.get(module, ())))
            value = " and ".join(f"{name} {metadata.version(name)}" for name in found) or module
        yield Check("runtimes of exported files (seen, not tried)", extra, value)


def _data(data: Path) -> Iterator[Check]:
    section, coco = "data", data / "coco"
    missing = [name for name in COCO_LAYOUT if not (coco / name).exists()]
    if missing:
        value = f"{coco}: no {', '.join(missing)}" if coco.is_dir() else f"{coco} is not there"
        remedy = (
            f"put or link COCO 2017 (https://cocodataset.org/#download) to {coco}, with "
            f"{', '.join(COCO_LAYOUT)}; `make train` needs none of it"
        )
        yield Check(section, "COCO", value, "note", remedy)
    else:
        yield Check(section, "COCO", str(coco))
    scenes = data / "digit_scenes"
    made = all((scenes / f"annotations/instances_{s}.json").is_file() for s in ("train", "val"))
    value = str(scenes) if made else f"{scenes}: not there yet, made on first use"
    yield Check(section, "digit scenes", value)


def _weights(online: bool) -> Iterator[Check]:
    """ImageNet weights of MixNet from timm: in the local cache, or to be had from the hub."""
    section = "ImageNet weights"
    try:
        import timm
        from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    except Exception:  # timm is said under versions, and brings huggingface_hub
        return
    for model in WEIGHTS:
        repo, file = timm.get_pretrained_cfg(model).hf_hub_id, "model.safetensors"
        if isinstance(try_to_load_from_cache(repo, file), str):
            yield Check(section, model, "in the cache")
        elif not online:
            yield Check(section, model, "not in the cache (--online asks the hub)")
        else:
            try:
                get_hf_file_metadata(hf_hub_url(repo, file), timeout=10)
                yield Check(section, model, "the hub has it")
            except Exception as error:
                remedy = (
                    f"fetch {hf_hub_url(repo, file)} on another machine and name the file: "
                    "--cfg-options model.backbone.init_cfg.checkpoint=FILE"
                )
                yield Check(section, model, f"out of reach: {_line(error)}", "note", remedy)


def _line(error: Exception) -> str:
    """First line of an error, with its class."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"


def works(checks: list[Check]) -> bool:
    """Say whether nothing prevents work."""
    return all(check.level != "problem" for check in checks)


def to_text(checks: list[Check]) -> str:
    """Lay the checks out as a table, remedies under the lines that need them, the verdict last."""
    width = max(len(check.name) for check in checks) + 2
    mark = {"ok": " ", "note": "-", "problem": "!"}
    lines, section = [], None
    for check in checks:
        if check.section != section:
            section = check.section
            lines += ["", section]
        lines.append(f" {mark[check.level]} {check.name:<{width}}{check.value}")
        if check.remedy:
            first = f"   {'':<{width}}-> "
            lines.append(
                textwrap.fill(
                    check.remedy,
                    110,
                    initial_indent=first,
                    subsequent_indent=" " * len(first),
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
    problems = sum(check.level == "problem" for check in checks)
    verdict = f"{problems} problem(s), marked with !" if problems else "Nothing prevents work."
    return "\n".join([*lines[1:], "", verdict])
