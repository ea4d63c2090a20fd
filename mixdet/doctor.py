"""Check the installed packages, the devices and the data, and suggest remedies.

`tools/doctor.py` prints the checks. This module must be importable in a broken installation, so it
imports torch and mmdet inside functions only.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import mixdet
from mixdet.machine import cores

MODULES = (  # import names, which can differ from the names of distributions
    *("torch", "torchvision", "mmengine", "mmcv", "mmdet", "timm", "pycocotools"),
    *("hotcoco", "numpy", "scipy", "cv2", "PIL", "matplotlib", "sklearn", "skimage", "tqdm"),
    *("huggingface_hub", "safetensors"),
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
        section: The heading above the line.
        name: What is checked, such as a package.
        value: What was found, such as the version of the package.
        level: 'ok', 'note' or 'problem'. MixDet works with a note, but not with a problem.
        remedy: What the user can do. Empty if the level is 'ok'.
    """

    section: str
    name: str
    value: str
    level: str = "ok"
    remedy: str = ""


def examine(folder: Path | None = None, online: bool = False) -> list[Check]:
    """Run all checks.

    Args:
        folder: The folder that holds `data/`. None is the working directory.
        online: Whether to ask Hugging Face if the ImageNet weights can be downloaded.

    Returns:
        The checks, in the order of the report.
    """
    data = (folder or Path()) / "data"
    parts: tuple[Callable[[], Iterator[Check]], ...] = (
        _versions,
        _operators,
        _detector,
        _devices,
        _runtimes,
        lambda: _data(data),
        lambda: _weights(online),
    )
    return [check for part in parts for check in part()]


def _versions() -> Iterator[Check]:
    section, recent = "versions", sys.version_info >= (3, 11)
    owners = _owners()
    try:
        yield Check(section, "mixdet", metadata.version("mixdet"))
    except metadata.PackageNotFoundError:
        value = f"{mixdet.__version__}, imported from a folder, not installed"
        yield Check(section, "mixdet", value, "note", INSTALL)
    yield Check(
        section,
        "python",
        sys.version.split()[0],
        "ok" if recent else "problem",
        "" if recent else "create an environment with Python 3.11 or newer",
    )
    for module in MODULES:
        yield _version(section, module, sorted(set(owners.get(module, ()))))


def _owners() -> Mapping[str, list[str]]:
    """Return the distributions that each top-level module belongs to."""
    # In Python 3.9, which lacks `packages_distributions`, the result is empty. `_versions` reports
    # that this Python is too old.
    return getattr(metadata, "packages_distributions", dict)()


def _version(section: str, module: str, owners: list[str]) -> Check:
    """Import a module, and check that it works and belongs to one distribution."""
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name == module
        value = "not installed" if missing else f"needs {error.name}, which is not installed"
        return Check(section, module, value, "problem", INSTALL)
    except Exception as error:  # wrong versions and binaries raise errors of many classes
        remedy = INSTALL
        if module == "cv2" and "lib" in str(error):
            remedy = "replace opencv-python by opencv-python-headless, which needs no display"
        return Check(section, module, f"does not import: {_line(error)}", "problem", remedy)
    versions = [metadata.version(owner) + f" ({owner})" * (owner != module) for owner in owners]
    value = " and ".join(versions) or str(getattr(imported, "__version__", "version unknown"))
    if module.startswith("mm") and len(owners) > 1:
        remedy = f"`pip uninstall {' '.join(owners)}`, then install one of them"
        return Check(section, module, f"{value} overwrite each other's files", "problem", remedy)
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
        remedy = (
            f"correct the versions above, or {INSTALL}. A compiled mmcv must be built for the "
            "installed torch."
        )
        yield Check(section, name, f"does not run: {_line(error)}", "problem", remedy)
        return
    yield Check(section, name, which_nms())


def _detector() -> Iterator[Check]:
    """Build a shipped detector with random weights, and detect in a black image."""
    section, name = "detector", "MixNet-S"
    try:
        import mixdet.plugin

        import torch
        from mmdet.registry import MODELS
        from mmdet.structures import DetDataSample
        from mmengine.registry import init_default_scope

        from mixdet.config.read import read_config
        from mixdet.config.shipped import find_config

        init_default_scope("mmdet")
        config = read_config(find_config("ssdlite_mixnet_s_digits"))
        model = MODELS.build(config.model).eval()
        sample = DetDataSample(
            metainfo=dict(img_shape=(160, 160), ori_shape=(160, 160), scale_factor=(1.0, 1.0))
        )
        image = torch.zeros(3, 160, 160, dtype=torch.uint8)
        with torch.inference_mode():
            model.test_step({"inputs": [image], "data_samples": [sample]})
    except Exception as error:
        remedy = f"correct the versions and operators above, or {INSTALL}"
        yield Check(section, name, f"does not run: {_line(error)}", "problem", remedy)
        return
    yield Check(section, name, "built from its config, and detects in an image")


def _devices() -> Iterator[Check]:
    section = "devices"
    yield Check(section, "cores", str(cores()))
    try:
        import torch
    except Exception:  # `_versions` reports this error
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        device = torch.cuda.get_device_properties(index)
        memory = f"{device.total_memory / 2**30:.0f} GiB"
        yield Check(section, f"gpu {index}", f"{device.name}, {memory}, CUDA {torch.version.cuda}")
    if count:
        return
    if shutil.which("nvidia-smi"):
        value = f"nvidia-smi is installed, but torch {torch.__version__} finds no GPU"
        remedy = "install the torch build for this driver: https://pytorch.org/get-started/locally"
        yield Check(section, "gpu", value, "note", remedy)
    else:
        yield Check(section, "gpu", "none found: training runs on the CPU")


def _runtimes() -> Iterator[Check]:
    """Check which runtimes of exported files are installed, without importing them."""
    try:
        from mixdet.inference.runtimes import RUNTIME_PACKAGES
    except Exception:  # NumPy cannot be imported. `_versions` reports this error
        return
    owners = _owners()
    for extra, module in RUNTIME_PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            value = f'not installed: pip install "mixdet[{extra}]"'
        else:
            packages = sorted(set(owners.get(module, ())))
            value = " and ".join(f"{name} {metadata.version(name)}" for name in packages) or module
        yield Check("runtimes of exported files (not tested)", extra, value)


def _data(data: Path) -> Iterator[Check]:
    section, coco = "data", data / "coco"
    missing = [name for name in COCO_LAYOUT if not (coco / name).exists()]
    if missing:
        value = f"{coco}: no {', '.join(missing)}" if coco.is_dir() else f"{coco} does not exist"
        remedy = (
            "download COCO 2017 (https://cocodataset.org/#download), and copy or link these parts "
            f"into {coco}: {', '.join(COCO_LAYOUT)}. `make train` works without COCO."
        )
        yield Check(section, "COCO", value, "note", remedy)
    else:
        yield Check(section, "COCO", str(coco))
    scenes = data / "digit_scenes"
    files = [scenes / f"annotations/instances_{split}.json" for split in ("train", "val")]
    exists = all(file.is_file() for file in files)
    value = str(scenes) if exists else f"{scenes} does not exist yet: created on first use"
    yield Check(section, "digit scenes", value)


def _weights(online: bool) -> Iterator[Check]:
    """Check whether timm's ImageNet weights of MixNet are in the cache or can be downloaded."""
    section = "ImageNet weights"
    try:
        import timm
        from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    except Exception:  # `_versions` reports that timm is missing or does not import
        return
    for model in WEIGHTS:
        repo, file = timm.get_pretrained_cfg(model).hf_hub_id, "model.safetensors"
        if isinstance(try_to_load_from_cache(repo, file), str):
            yield Check(section, model, "in the cache")
        elif not online:
            yield Check(section, model, "not in the cache (--online checks the download)")
        else:
            try:
                get_hf_file_metadata(hf_hub_url(repo, file), timeout=10)
                yield Check(section, model, "can be downloaded")
            except Exception as error:
                remedy = (
                    f"download {hf_hub_url(repo, file)} on another machine, copy the file to this "
                    "one, and train with --cfg-options model.backbone.init_cfg.checkpoint=FILE"
                )
                yield Check(section, model, f"cannot be downloaded: {_line(error)}", "note", remedy)


def _line(error: Exception) -> str:
    """Return the class and the first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"


def works(checks: list[Check]) -> bool:
    """Return whether MixDet works, which means that no check has the level 'problem'."""
    return all(check.level != "problem" for check in checks)


def to_text(checks: list[Check]) -> str:
    """Format the checks as a table, with remedies below their lines and a summary at the end."""
    width = max(len(check.name) for check in checks) + 2
    mark = {"ok": " ", "note": "-", "problem": "!"}
    lines, section = [], None
    for check in checks:
        if check.section != section:
            section = check.section
            lines += ["", section]
        lines.append(f" {mark[check.level]} {check.name:<{width}}{check.value}")
        if check.remedy:
            arrow = f"   {'':<{width}}-> "
            lines.append(
                textwrap.fill(
                    check.remedy,
                    110,
                    initial_indent=arrow,
                    subsequent_indent=" " * len(arrow),
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
    problems = sum(check.level == "problem" for check in checks)
    summary = f"{problems} problem(s), marked with !" if problems else "No problems."
    return "\n".join([*lines[1:], "", summary])
