"""Keep networks from hanging in forked processes.

Only the thread that forks exists in the child. The other threads of a runtime are gone, and a call
that waits for one of them never returns. Therefore a network computes only in the process that
loaded it, and `check_process` raises an error in any other process. A child never frees the
networks of its parent, since runtimes also wait for their threads when they free a network.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable

import numpy as np

from mixdet.errors import MixDetError

# Packages whose threads are shared by all networks of a process
SHARED_THREADS = ("torch", "ncnn", "openvino")
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


def guard_call(call: Callable[[np.ndarray], list]) -> Callable[[np.ndarray], list]:
    """Return a function that runs `call`, only in this process and in one thread at a time.

    Raises:
        MixDetError: The returned function is called in a fork of this process.
    """
    process, lock = os.getpid(), threading.Lock()

    def guarded(images: np.ndarray) -> list:
        check_process(process)  # before the lock, which can be held forever in a child
        with lock:
            return call(images)

    _calls.add(guarded)
    return guarded


def usable_threads(package: str, threads: int | None) -> int | None:
    """Return the number of threads that a runtime can compute with.

    The number is 1 in a forked process whose parent has imported the package. The threads of
    OpenMP, which torch and ncnn use, would be missing.

    Args:
        package: The Python package of the runtime.
        threads: The number that the user asks for.

    Returns:
        The number. None leaves it to the runtime.

    Raises:
        MixDetError: The user asks for more threads than can be used.
    """
    if package in _used_before_fork:
        if threads is not None and threads > 1:
            raise MixDetError(
                f"threads={threads}: {package} was imported before this process was forked, and "
                f"computes in one thread here: leave threads out, or {SPAWN}"
            )
        return 1
    return threads


def refuse_in_fork(package: str) -> None:
    """Check that the parent of a forked process has not imported a package.

    Raises:
        MixDetError: The parent has imported the package.
    """
    if package in _used_before_fork:
        raise MixDetError(
            f"{package} was imported before this process was forked, and cannot compute here: "
            f"{SPAWN}, or choose another runtime"
        )


def omp_num_threads() -> int | None:
    """Return the first number of `OMP_NUM_THREADS`, or None if there is no valid one."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and int(first) > 0 else None


def _after_fork_in_child() -> None:
    _used_before_fork.update(name for name in SHARED_THREADS if name in sys.modules)
    for call in _calls:  # one more reference, so that it is never freed
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(call))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
