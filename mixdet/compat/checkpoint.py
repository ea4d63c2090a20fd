"""Write and read mmengine's checkpoints without running code in them.

The fault: mmengine's checkpoints are pickles of objects, so reading a checkpoint can run any code.
mmengine 0.10.7 writes its `HistoryBuffer` objects, the functions of a one-cycle scheduler and numpy
scalars into checkpoints. From torch 2.6 on, `torch.load` refuses these objects. So `--resume`
fails. Checkpoints from http are still unpickled without a check, since the default of
`torch.hub.load_state_dict_from_url` is still `weights_only=False`. The fork onedl-mmengine 0.10.12
unpickles every file that torch refuses.

The fix: three functions are replaced in mmengine's checkpoint module only. `torch.save` writes only
tensors and plain Python values (strings, numbers, bytes, None, and containers of them).
`torch.load` refuses anything else. The download function uses this `torch.load`. mmengine reads
every source with these functions (local, http, torchvision://, open-mmlab://, Pretrained, resume),
so no config needs a hook. mmengine without mixdet can also read the checkpoints. If it resumes from
such a checkpoint, it skips the log history.

This module can be removed when mmengine reads and writes with `weights_only=True`.
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
from mixdet.file_kinds import other_kind, require_checkpoint

_mmengine_trusts = False  # whether mmengine's own loader may run code; `trust_checkpoints` sets it
_reported: set[str] = set()  # places in checkpoints whose left-out values were already logged

MapLocation = str | torch.device | Callable | dict | None
_PLAIN_TYPES = (str, int, float, bool, complex, bytes, bytearray, type(None))
_TORCH_TYPES = (torch.Tensor, torch.Size, torch.dtype, torch.device)


def trust_checkpoints() -> None:
    """Let mmengine run the code in every checkpoint that this process loads from now on.

    `tools/train.py`, `tools/test.py` and `mixdet.run` call this function for `--trust-checkpoint`,
    since mmengine's loader has no argument `trust`. mixdet's own code passes `trust` to `load`.
    """
    global _mmengine_trusts
    _mmengine_trusts = True


class _NotPlainError(TypeError):
    """A value that a checkpoint cannot hold."""


def to_plain(value: Any, where: str = "checkpoint") -> Any:
    """Copy a value as tensors and plain Python values.

    History buffers and mappings become dicts, and NumPy values become Python values. A value that
    has no plain form is left out of the dict that holds it. The omission is logged unless the value
    is a function, such as the annealing function of a scheduler. A resumed run gets such functions
    from its config.

    Args:
        value: The value to save.
        where: Place of the value in the checkpoint, for the log.

    Returns:
        The copy, which `torch.load(weights_only=True)` reads.
    """
    if type(value) in _PLAIN_TYPES or isinstance(value, _TORCH_TYPES):
        return value
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return {
            "log_history": torch.tensor(log),
            "count_history": torch.tensor(count),
            "max_length": value.max_length,
        }
    if isinstance(value, np.generic | np.ndarray):
        return to_plain(value.tolist(), where)
    if isinstance(value, Mapping):
        return _plain_mapping(value, where)
    for kinds, plain_kind in ((list, list), (tuple, tuple), (set | frozenset, set)):
        if isinstance(value, kinds):
            return plain_kind(to_plain(item, f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    for base in (str, int, float, bytes):  # subclasses, such as enumerations
        if isinstance(value, base):
            return base(value)
    raise _NotPlainError(where)


def _plain_mapping(value: Mapping, where: str) -> dict:
    ordered = isinstance(value, OrderedDict)
    result: dict = OrderedDict() if ordered else {}
    if ordered:
        vars(result).update(vars(value))  # `_metadata` of a state dict: the versions of its modules
    for key, item in value.items():
        place = f"{where}.{key}"
        try:
            result[to_plain(key, place)] = to_plain(item, place)
        except _NotPlainError as error:
            if not callable(item) and place not in _reported:
                _reported.add(place)
                print_log(
                    f"{error} ({type(item).__name__}) is left out of checkpoints: it is neither a "
                    "tensor nor a plain Python value",
                    logger="current",
                    level=logging.WARNING,
                )
    return result


def _restore(checkpoint: dict, trust: bool) -> None:
    """Restore the history buffers that `to_plain` turned into dicts.

    Also drop the text `meta.config`, unless the checkpoint is trusted: mmengine runs this text as
    Python when it resumes. mixdet reads the config from the text `meta.cfg` instead.
    """
    meta = checkpoint.get("meta")
    if isinstance(meta, dict) and not trust:
        meta.pop("config", None)
    hub = checkpoint.get("message_hub")
    scalars = hub.get("log_scalars", {}) if isinstance(hub, dict) else {}
    for key, value in scalars.items():
        if isinstance(value, dict):
            scalars[key] = HistoryBuffer(
                value["log_history"].cpu().numpy(),
                value["count_history"].cpu().numpy(),
                value["max_length"],
            )


def save(checkpoint: Any, file: Any, **kwargs: Any) -> None:
    """Save a copy of `checkpoint`, made by `to_plain`, with `torch.save`."""
    torch.save(to_plain(checkpoint), file, **kwargs)


def load(file: Any, map_location: MapLocation = None, trust: bool = False) -> dict:
    """Read a checkpoint or a state dict. Code in the file can run only if `trust` is set.

    Args:
        file: A path or a buffer. A path that ends in `.safetensors` is read in that format, any
            other file in the format of `torch.save`.
        map_location: As in `torch.load`.
        trust: Unpickle any object. This can run any code that the file names.

    Returns:
        The dict in the file, with mmengine's history buffers restored.

    Raises:
        MixDetError: The file is missing, damaged or not a checkpoint, or reading it would run code
            and `trust` is not set.
    """
    name = "the checkpoint"
    if isinstance(file, str | os.PathLike):
        name = os.fspath(file)
        require_checkpoint(name)
    try:
        if name.endswith(".safetensors"):
            content = _load_safetensors(name, map_location)
        else:
            content = torch.load(file, map_location=map_location, weights_only=not trust)
    except OSError as error:
        raise MixDetError(f"{name} cannot be read: {error}") from error
    except Exception as error:  # torch and safetensors raise any exception for a damaged file
        raise MixDetError(_refusal(name, error)) from error
    if not isinstance(content, dict):
        raise MixDetError(
            f"{name} holds a {type(content).__name__}, not a checkpoint or a state dict: name "
            "another file"
        )
    _restore(content, trust)
    return content


def _load_safetensors(name: str, map_location: MapLocation) -> dict:
    from safetensors.torch import load_file

    device = map_location if isinstance(map_location, str | torch.device) else "cpu"
    return load_file(name, device=str(device))


def _refusal(name: str, error: Exception) -> str:
    """Return one line that says why torch did not read a file."""
    if kind := other_kind(name):
        return f"{name} cannot be read as a checkpoint: it is {kind}"
    refused = isinstance(error, pickle.UnpicklingError) and re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return (
            f"{name} is not loaded: it would have to run code (it asks for {refused[1]}). If you "
            "trust its source, use --trust-checkpoint (trust_checkpoint=True in Python)"
        )
    # Only these classes of errors have a message that explains the fault
    explained = isinstance(error, RuntimeError | ImportError | AttributeError)
    reason = re.split(r"\.\s|\n", str(error))[0] if explained else ""
    reason = reason or "damaged, cut off, or another kind of file"
    return (
        f"{name} cannot be read as a checkpoint ({reason}): if it is a checkpoint, copy or "
        "download it again; if not, name one, such as epoch_12.pth"
    )


def _load_for_mmengine(file: Any, map_location: MapLocation = None, **_: Any) -> dict:
    """Call `load` instead of `torch.load`. Code can run only after `trust_checkpoints`."""
    return load(file, map_location, _mmengine_trusts)


def load_url(
    url: str, model_dir: str | None = None, map_location: MapLocation = None, progress: bool = True
) -> dict:
    """Download a checkpoint into torch's cache if it is not there yet, and load it for mmengine.

    The name of the cached file contains a hash of the whole URL, since many sites have a file named
    `model.safetensors`.
    """
    folder = Path(model_dir or Path(torch.hub.get_dir(), "checkpoints"))
    name = Path(urlparse(url).path)
    file = folder / f"{name.stem}-{hashlib.sha256(url.encode()).hexdigest()[:16]}{name.suffix}"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), progress=progress)
    return _load_for_mmengine(file, map_location)


class _SafeTorch(ModuleType):
    """The module that mmengine's checkpoint module sees as `torch`."""

    load = staticmethod(_load_for_mmengine)
    save = staticmethod(save)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def install() -> None:
    """Replace the functions that mmengine loads and saves checkpoints with."""
    if isinstance(mmengine_checkpoint.torch, _SafeTorch):
        return
    mmengine_checkpoint.torch = _SafeTorch("torch", __doc__)
    mmengine_checkpoint.load_url = load_url
    # This function exists only in onedl-mmengine. It unpickles files that `torch.load` refuses.
    if hasattr(mmengine_checkpoint, "_safe_torch_load"):
        mmengine_checkpoint._safe_torch_load = _load_for_mmengine
    loader = mmengine_checkpoint.CheckpointLoader
    load_any_scheme = loader.load_checkpoint  # a bound method, so calls do not pass `cls`

    def load_checkpoint(
        cls: type, filename: str, map_location: MapLocation = None, logger: Any = "current"
    ) -> dict:
        """Load a checkpoint from a path or from any URL that mmengine knows.

        Raises:
            MixDetError: The file is missing, cannot be fetched, or names an unknown model.
        """
        try:
            return load_any_scheme(filename, map_location, logger)
        except FileNotFoundError as error:
            require_checkpoint(Path(filename).expanduser())
            raise MixDetError(f"{filename}: no such checkpoint file") from error
        except OSError as error:  # no network, no such page, no permission
            raise MixDetError(
                f"{filename} cannot be fetched ({error}): download it by hand and name that file"
            ) from error
        except KeyError as error:
            if "://" not in filename:
                raise
            raise MixDetError(
                f"{filename}: mmengine knows no model named {error}: check its name"
            ) from error

    loader.load_checkpoint = classmethod(load_checkpoint)
