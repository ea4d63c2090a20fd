"""Each side in a process of its own, which it may set up as it likes, and which works when asked."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection


@contextlib.contextmanager
def served(start: Callable[..., Callable], *args: object) -> Iterator[Callable]:
    """A process that answers.

    Args:
        start: Runs there once, and gives the function that answers a request. A module's function:
            it is found by its name.
        *args: For it.

    Yields:
        A function that sends a request, waits, and returns the answer.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, start, args))
    process.start()
    theirs.close()  # so that a process that dies is noticed

    def ask(request: object) -> object:
        ours.send(request)
        return ours.recv()

    try:
        yield ask
    finally:
        ours.close()
        process.join()


def _serve(client: Connection, start: Callable[..., Callable], args: tuple) -> None:
    answer = start(*args)
    with contextlib.suppress(EOFError):  # the client has what it wants
        while True:
            client.send(answer(client.recv()))
