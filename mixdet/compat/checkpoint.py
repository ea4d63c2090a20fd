"""The fault: mmengine's checkpoints are pickles of objects, so reading one can run any code.

mmengine 0.10.7 writes its `HistoryBuffer` objects, the functions of a one-cycle scheduler and
numpy scalars into checkpoints. From torch 2.6 on `torch.load` refuses those, so `--resume` fails;
checkpoints that come over http are still unpickled without a question, since
`torch.hub.load_state_dict_from_url` kept its old default. onedl-mmengine 0.10.12 falls back to
unpickling whatever torch refuses.

The answer: mmengine's checkpoint module gets another `torch.save`, which writes tensors and plain
Python values only, another `torch.load`, which reads nothing else, and a download that uses it.
Every path goes through them (local, http, torchvision://, open-mmlab://, Pretrained, resume), and
no config needs a hook. An mmengine without mixdet reads such a checkpoint too; resuming there, it
skips the log history.

It can go when mmengine reads and writes with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import checkpoint as mmengine_checkpoint

from mixdet.errors import MixDetError

_trusted = False
_reported: set[str] = set()  # what was left out is said once, not at every epoch

MapLocation = str | torch.device | Callable | dict | None
_ATOMS = (str, int, float, bool, complex, bytes, bytearray, type(None))
_TORCH = (torch.Tensor, torch.Size, torch.dtype, torch.device)


def trust_checkpoints(trust: bool = True) -> None:
    """Let this process run what code a checkpoint may hold: a tool's `--trust-checkpoint`."""
    global _trusted
    _trusted = trust


class _NotPlainError(TypeError):
    """A value that a checkpoint cannot hold."""


def plain(value: Any, where: str = "checkpoint") -> Any:
    """Copy containers until only tensors and plain Python values are left.

    History buffers and mappings become dicts, numpy values Python's. What has no plain form is
    left out of the dict that holds it, with a warning unless it is code, which the config brings
    back (a scheduler's annealing function).

    Args:
        value: What is about to be saved.
        where: Its place in the checkpoint, for the warning.

    Returns:
        Something that `torch.load(weights_only=True)` reads back.
    """
    if type(value) in _ATOMS or isinstance(value, _TORCH):
        return value
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return {
            "log_history": torch.tensor(log),
            "count_history": torch.tensor(count),
            "max_length": value.max_length,
        }
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist(), where)
    if isinstance(value, Mapping):
        return _plain_mapping(value, where)
    for kinds, plain_kind in ((list, list), (tuple, tuple), (set | frozenset, set)):
        if isinstance(value, kinds):
            return plain_kind(plain(item, f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    for atom in (str, int, float, bytes):  # their subclasses, enumerations among them
        if isinstance(value, atom):
            return atom(value)
    raise _NotPlainError(where)


def _plain_mapping(value: Mapping, where: str) -> dict:
    ordered = isinstance(value, OrderedDict)
    result: dict = OrderedDict() if ordered else {}
    if ordered:
        vars(result).update(vars(value))  # a state dict's `_metadata`: the versions of its modules
    for key, item in value.items():
        place = f"{where}.{key}"
        try:
            result[plain(key, place)] = plain(item, place)
        except _NotPlainError as error:
            if not callable(item) and place not in _reported:
                _reported.add(place)
                print_log(
                    f"{error} ({type(item).__name__}) is no plain value: left out of checkpoints",
                    logger="current",
                    level=logging.WARNING,
                )
    return result


def _restored(checkpoint: dict) -> dict:
    """Turn what `plain` wrote back into history buffers, and drop what a resume would run."""
    meta = checkpoint.get("meta")
    if isinstance(meta, dict) and not _trusted:
        meta.pop("config", None)  # mmengine's resume would run this text as Python; ours is `cfg`
    hub = checkpoint.get("message_hub")
    scalars = hub.get("log_scalars", {}) if isinstance(hub, dict) else {}
    for key, value in scalars.items():
        if isinstance(value, dict):
            scalars[key] = HistoryBuffer(
                value["log_history"].cpu().numpy(),
                value["count_history"].cpu().numpy(),
                value["max_length"],
            )
    return checkpoint


def save(checkpoint: Any, file: Any, **kwargs: Any) -> None:
    """`torch.save` of the plain form of `checkpoint`."""
    torch.save(plain(checkpoint), file, **kwargs)


def load(file: Any, map_location: MapLocation = None, **kwargs: Any) -> dict:
    """Read a checkpoint or a state dict without running any code in it.

    Args:
        file: A path (`.safetensors` for that format, else what `torch.save` wrote) or a buffer.
        map_location: As in `torch.load`.
        **kwargs: For `torch.load`; its own `weights_only` is not asked.

    Returns:
        The dict in the file, history buffers of mmengine's restored.

    Raises:
        MixDetError: The file is missing, damaged, no checkpoint, or would have to run code and
            `trust_checkpoints` was not called.
    """
    name = os.fspath(file) if isinstance(file, str | os.PathLike) else "the checkpoint"
    kwargs["weights_only"] = not _trusted
    try:
        if name.endswith(".safetensors"):
            content = _load_safetensors(name, map_location)
        else:
            content = torch.load(file, map_location=map_location, **kwargs)
    except FileNotFoundError as error:
        raise MixDetError(f"{name}: no such checkpoint file") from error
    except OSError as error:
        raise MixDetError(f"{name} cannot be read: {error}") from error
    except Exception as error:
        raise MixDetError(_refusal(name, error)) from error
    if not isinstance(content, dict):
        raise MixDetError(
            f"{name} holds a {type(content).__name__}, not a checkpoint or a state dict"
        )
    return _restored(content)


def _load_safetensors(name: str, map_location: MapLocation) -> dict:
    from safetensors.torch import load_file

    device = map_location if isinstance(map_location, str | torch.device) else "cpu"
    return load_file(name, device=str(device))


def _refusal(name: str, error: Exception) -> str:
    """Say in one line why torch did not read the file. It may raise anything on a damaged one."""
    wanted = isinstance(error, pickle.UnpicklingError) and re.search(r"GLOBAL (\S+)", str(error))
    if wanted:
        return (
            f"{name} is not loaded: it would have to run code (it asks for {wanted[1]}). If you "
            "trust whoever made it, --trust-checkpoint is the only way round"
        )
    # torch's own words where they explain something; those of its unpickler do not
    telling = isinstance(error, RuntimeError | ImportError | AttributeError)
    reason = telling and re.split(r"\.\s|\n", str(error))[0]
    reason = reason or "damaged, cut off, or another kind of file"
    return (
        f"{name} cannot be read as a checkpoint ({reason}): copy or download it again if it is "
        "one; if not, name one, such as epoch_12.pth"
    )


def load_url(
    url: str, model_dir: str | None = None, map_location: MapLocation = None, progress: bool = True
) -> dict:
    """Download a checkpoint into torch's cache, once, and `load` it from there.

    The file is named after its whole address: many sites have a `model.safetensors`.
    """
    folder = Path(model_dir or Path(torch.hub.get_dir(), "checkpoints"))
    name = Path(urlparse(url).path)
    file = folder / f"{name.stem}-{hashlib.sha256(url.encode()).hexdigest()[:16]}{name.suffix}"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), progress=progress)
    return load(file, map_location)


class _SafeTorch(ModuleType):
    """What mmengine's checkpoint module sees as `torch`."""

    load = staticmethod(load)
    save = staticmethod(save)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def install() -> None:
    """Put our `save`, `load` and `load_url` where mmengine looks for torch's."""
    if isinstance(mmengine_checkpoint.torch, _SafeTorch):
        return
    mmengine_checkpoint.torch = _SafeTorch("torch", __doc__)
    mmengine_checkpoint.load_url = load_url
    if hasattr(mmengine_checkpoint, "_safe_torch_load"):  # onedl's, which allows more
        mmengine_checkpoint._safe_torch_load = load
    loader = mmengine_checkpoint.CheckpointLoader
    find_and_load = loader.load_checkpoint  # bound: chooses the loader by the scheme of the name

    def load_checkpoint(
        cls: type, filename: str, map_location: MapLocation = None, logger: Any = "current"
    ) -> dict:
        """Load a checkpoint of any scheme; what the user can mend is a `MixDetError`."""
        try:
            return find_and_load(filename, map_location, logger)
        except FileNotFoundError as error:
            raise MixDetError(f"{filename}: no such checkpoint file") from error
        except OSError as error:  # no network, no such page, no permission
            raise MixDetError(
                f"{filename} cannot be fetched ({error}): download it by hand and name that file"
            ) from error
        except KeyError as error:
            if "://" not in filename:
                raise
            raise MixDetError(f"{filename}: mmengine knows no model named {error}") from error

    loader.load_checkpoint = classmethod(load_checkpoint)
