"""Keep the loggers of other packages quiet."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def errors_only(name: str | None = None) -> Iterator[None]:
    """Let a logger print errors only, within a `with` statement.

    Args:
        name: The logger's name. None is the root logger.
    """
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
