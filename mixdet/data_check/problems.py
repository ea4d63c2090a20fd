"""A problem is said once, with how often it occurs and a few examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

EXAMPLES = 5

ERROR, WARNING, NOTE = "error", "warning", "note"
LEVELS = (ERROR, WARNING, NOTE)


@dataclass(frozen=True)
class Example:
    """One occurrence.

    Attributes:
        text: What is wrong, with the ids or names that find it.
        image: Path of the image, where one can be shown.
        box: (x, y, w, h) in pixels of the image as the annotations have it, where one is meant.
    """

    text: str
    image: str | None = None
    box: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Problem:
    """What is wrong with a part of the data.

    Attributes:
        code: A short name that stays the same, for scripts.
        level: `error` where training or its evaluation would be meaningless, `warning` where a part
            of the data is lost or doubtful, `note` where it may be meant.
        data: Which part, such as `training`.
        text: What is wrong, and the remedy.
        count: How often.
        examples: The first few.
    """

    code: str
    level: str
    data: str
    text: str
    count: int
    examples: list[Example] = field(default_factory=list)

    def line(self) -> str:
        """The problem and its first example in one line."""
        first = f" (first: {self.examples[0].text})" if self.examples else ""
        return f"{self.data} data: {self.text}: {self.count:,}{first}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def problem(
    code: str,
    level: str,
    data: str,
    text: str,
    count: int,
    examples: Iterable[Example] = (),
) -> list[Problem]:
    """A list of the problem, empty where it never occurs; examples are made only as far as shown.

    Args:
        code: As in `Problem`, like the next four.
        level: See there.
        data: See there.
        text: See there.
        count: See there.
        examples: Every occurrence, lazily.
    """
    if not count:
        return []
    return [Problem(code, level, data, text, count, list(islice(examples, EXAMPLES)))]
