"""The class of errors that a user can fix, and the function that prints them for a tool."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

__all__ = ["MixDetError"]


class MixDetError(Exception):
    """An error that the user can fix.

    The message is one line. It says what is wrong, where it is wrong, and what to do.
    """


def one_line(error: Exception) -> str:
    """Return the class and the message of an exception as one line."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return f"{type(error).__name__}: {' '.join(str(text).split())}"


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the question `did you mean ...?` with the most similar known word.

    Args:
        word: The word that is not known.
        known: The known words.
        cutoff: Lowest similarity, from 0 to 1, as in `difflib.get_close_matches`.

    Returns:
        The question, or None if no known word is similar enough.
    """
    import difflib  # imported here, since most runs of a tool do not need it

    words = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(word.lower(), words, n=1, cutoff=cutoff)
    return f"did you mean {words[close[0]]}?" if close else None


def run_tool(main: Callable[[], int | None]) -> None:
    """Run a command-line tool and exit.

    A `MixDetError` is printed as one line, and the exit code is 1. Any other exception is a bug, so
    its traceback is printed.
    """
    try:
        code = main()
    except MixDetError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt as error:
        print(": ".join(["interrupted", *map(str, error.args)]), file=sys.stderr)
        code = 130
    sys.exit(code)
