"""A problem of the data: what is wrong, how often, and a few examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from mixdet.config.data_paths import LOADERS

MAX_EXAMPLES = 5

ERROR, WARNING, NOTE = "error", "warning", "note"
LEVELS = (ERROR, WARNING, NOTE)  # from the most to the least severe
SPLIT_NAMES = dict(zip(LOADERS, ("training", "validation", "test"), strict=True))


@dataclass(frozen=True)
class Example:
    """One occurrence of a problem.

    Attributes:
        text: What is wrong, with the id or the name of the entry.
        image: Path of the image, or None if there is no image to show.
        box: The box as annotated, (x, y, w, h) in pixels of the image, or None if the example is
            not about a box.
    """

    text: str
    image: str | None = None
    box: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with one data set.

    Attributes:
        code: Short name of the kind of problem, for scripts.
        level: `error` if training or evaluation would be meaningless, `warning` if some of the data
            are lost or doubtful, `note` if the data may be intended to be like this.
        data: The data set, such as `training`.
        text: What is wrong. Some texts also state the consequence or the remedy.
        count: Number of occurrences.
        examples: The first occurrences.
    """

    code: str
    level: str
    data: str
    text: str
    count: int
    examples: list[Example] = field(default_factory=list)

    def headline(self) -> str:
        """Return the data set, what is wrong, and the count in one line."""
        count = f" ({self.count:,} cases)" if self.count > 1 else ""
        return f"{self.data} data: {self.text}{count}"

    def line(self) -> str:
        """Return the headline and the first example in one line."""
        first = f" (first: {self.examples[0].text})" if self.examples else ""
        return self.headline() + first

    def as_dict(self) -> dict[str, Any]:
        """Return a dict that can be written as JSON."""
        return asdict(self)


@dataclass
class Tally:
    """Counts occurrences of a problem, and keeps the first of them.

    Attributes:
        count: Number of occurrences.
        examples: The first `MAX_EXAMPLES` occurrences.
    """

    count: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """Count an occurrence."""
        self.count += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(example)


def problem_list(
    code: str,
    level: str,
    data: str,
    text: str,
    count: int,
    examples: Iterable[Example] = (),
) -> list[Problem]:
    """Return a list that holds one problem, or an empty list if `count` is 0.

    Args:
        code: See `Problem`.
        level: See `Problem`.
        data: See `Problem`.
        text: See `Problem`.
        count: See `Problem`.
        examples: All occurrences. The problem gets only the first `MAX_EXAMPLES`.
    """
    if not count:
        return []
    return [Problem(code, level, data, text, count, list(islice(examples, MAX_EXAMPLES)))]
