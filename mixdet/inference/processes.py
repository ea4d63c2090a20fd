"""Keep networks from hanging in forked processes.

Only the thread that forks exists in the child. The other threads of a runtime are gone, and a call
that waits for one of them never returns. Therefore a network computes only in the process that
loaded it, and `check_process` raises an error in any other process. A child never frees the
networks of its parent, since runtimes also wait for their threads when they free a network.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable

import numpy as np

from mixdet.errors import MixDetError

# Packages that compute with OpenMP, which works with one thread in a fork
OPENMP = ("torch", "ncnn")
# Packages whose threads serve all networks of a process. OpenVINO keeps the threads of a freed
# network for later networks
SHARED_THREADS = (*OPENMP, "openvino")
SPAWN = "start this process with multiprocessing.get_context('spawn')"

_calls: weakref.WeakSet[Callable] = weakref.WeakSet()  # each function refers to a network
_used_before_fork: set[str] = set()


def check_process(process: int) -> None:
    """Check that an object is used in the process that made it.

    Args:
        process: `os.getpid()` of the process that made the object.

    Raises:
        MixDetError: The current process is a fork of that process.
    """
    if os.getpid() != process:
        raise MixDetError(
            f"this detector was made in process {process}, before the fork of process "
            f"{os.getpid()}: make it in the worker process, for example in the initializer of "
            "multiprocessing.Pool"
        )


def guard_call(
    call: Callable[[np.ndarray], list], one_at_a_time: bool = True
) -> Callable[[np.ndarray], list]:
    """Return a function that runs `call`, only in this process.

    Args:
        call: The function.
        one_at_a_time: Let threads that call at the same time wait for each other.

    Raises:
        MixDetError: The returned function is called in a fork of this process.
    """
    process = os.getpid()
    lock = threading.Lock() if one_at_a_time else contextlib.nullcontext()

    def guarded(images: np.ndarray) -> list:
        check_process(process)  # before the lock, which can be held forever in a child
        with lock:
            return call(images)

    _calls.add(guarded)
    return guarded


def usable_threads(package: str, threads: int | None) -> int | None:
    """Return the number of threads that a runtime can compute with.

    Args:
        package: The Python package of the runtime.
        threads: The number that the user asks for.

    Returns:
        `threads`, or 1 in a fork whose parent has imported torch or ncnn, for these packages.

    Raises:
        MixDetError: This is a fork whose parent has imported the package, and the package cannot
            compute here, or cannot use this many threads here.
    """
    if package not in _used_before_fork:
        return threads
    imported = f"{package} was imported before this process was forked"
    if package not in OPENMP:
        raise MixDetError(
            f"{imported}, and cannot compute here: {SPAWN}, or choose another runtime"
        )
    if threads is not None and threads > 1:
        raise MixDetError(
            f"threads={threads}: {imported}, and computes in one thread here: leave threads out, "
            f"or {SPAWN}"
        )
    return 1


def omp_num_threads() -> int | None:
    """Return the first number of `OMP_NUM_THREADS`, or None if there is no valid one."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and int(first) > 0 else None


def _after_fork_in_child() -> None:
    _used_before_fork.update(name for name in SHARED_THREADS if name in sys.modules)
    for call in _calls:  # add a reference, so that Python never frees the network
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(call))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
