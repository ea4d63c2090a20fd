"""The one error class for everything that a user can mend, and how a tool prints it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable


class MixDetError(Exception):
    """A refusal: one line that names the file or key at fault and the remedy."""


def one_line(error: Exception) -> str:
    """An exception's kind and message as one line."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return f"{type(error).__name__}: {' '.join(str(text).split())}"


def did_you_mean(word: str, known: Iterable[str], alike: float = 0.6) -> str | None:
    """A question for the known word that is most like a wrong one.

    Args:
        word: The wrong one.
        known: The right ones.
        alike: From 0 to 1, how much, at least: difflib's ratio, and its default.

    Returns:
        The question; None where no word is like it.
    """
    import difflib  # only where something is wrong: tools start without it

    words = {each.lower(): each for each in known}
    close = difflib.get_close_matches(word.lower(), words, n=1, cutoff=alike)
    return f"did you mean {words[close[0]]}?" if close else None


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
