"""The one error class for everything that a user can mend, and how a tool prints it."""

from __future__ import annotations

import sys
from collections.abc import Callable


class MixDetError(Exception):
    """A refusal: one line that names the file or key at fault and the remedy."""


def one_line(error: Exception) -> str:
    """An exception's kind and message as one line."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return f"{type(error).__name__}: {' '.join(str(text).split())}"


def run_tool(main: Callable[[], int | None]) -> None:
    """Run a command-line tool; a `MixDetError` becomes one line on stderr and exit code 1.

    Any other exception keeps its traceback: it is a bug, and the traceback is what helps.
    """
    try:
        code = main()
    except MixDetError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
