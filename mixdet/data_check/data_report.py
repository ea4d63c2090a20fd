"""The result of a data check, as text and as a dict for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mixdet.data_check.anchor_fit import AnchorFit
from mixdet.data_check.data_problems import ERROR, LEVELS, NOTE, Problem
from mixdet.data_check.data_splits import Split
from mixdet.data_check.used_data import UsedData
from mixdet.errors import MixDetError
from mixdet.visual.tables import text_table

MAX_CHARACTERS = 200  # longer examples are cut in a terminal


@dataclass(frozen=True)
class SplitSummary:
    """The size of a split. A split is a data set of the config.

    Attributes:
        data: Name of the split.
        ann_file: Path of the annotation file.
        images: Number of images in the file.
        boxes: Number of boxes in the file.
        classes: Number of classes of the config.
        used_images: Number of images that the data set yields after all filters. None if the data
            set cannot be built.
        objects: Number of objects of each class in the used images. Crowds and ignored boxes are
            not counted.
    """

    data: str
    ann_file: str
    images: int
    boxes: int
    classes: int
    used_images: int | None
    objects: dict[str, int]

    def line(self) -> str:
        """Return how many images and objects are used, in one line."""
        objects = ", ".join(f"{name} {count:,}" for name, count in self.objects.items())
        total = sum(self.objects.values())
        return (
            f"{self.data} data: {self.used_images:,} of {self.images:,} images are used, with "
            f"{total:,} objects: {objects}"
        )


@dataclass(frozen=True)
class DataReport:
    """The result of a data check.

    Attributes:
        summaries: Sizes of the checked data sets.
        problems: What is wrong with the data sets.
        anchors: Which boxes the anchors match, or None if this was not counted.
        unread_images: How many images were not read, since Ctrl-C ended the check.
    """

    summaries: list[SplitSummary]
    problems: list[Problem]
    anchors: AnchorFit | None
    unread_images: int = 0

    @property
    def ok(self) -> bool:
        """Whether all images were checked, without an error or a warning."""
        return not self.unread_images and all(problem.level == NOTE for problem in self.problems)

    @property
    def has_errors(self) -> bool:
        """Whether there is an error."""
        return any(problem.level == ERROR for problem in self.problems)

    def refuse_errors(self) -> None:
        """Raise a `MixDetError` with the first problem of the level "error", if there is one."""
        errors = [problem for problem in self.problems if problem.level == ERROR]
        if errors:
            more = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
            raise MixDetError(f"{errors[0].line()}{more}: tools/check_data.py shows all problems")

    def sorted_problems(self) -> list[Problem]:
        """Return the problems, the worst first."""
        return sorted(self.problems, key=lambda problem: LEVELS.index(problem.level))

    def as_dict(self) -> dict[str, Any]:
        """Return a dict that can be written as JSON."""
        return {
            "ok": self.ok,
            "data": [asdict(summary) for summary in self.summaries],
            "problems": [problem.as_dict() for problem in self.sorted_problems()],
            "anchors": self.anchors and self.anchors.as_dict(),
            "unread_images": self.unread_images,
        }

    def text(self) -> str:
        """Return the report for a terminal: each problem with its count and first examples."""
        parts = [summary_table(self.summaries)]
        parts += [summary.line() for summary in self.summaries if summary.used_images is not None]
        for problem in self.sorted_problems():
            lines = [f"{problem.level}: {problem.headline()}"]
            lines += [f"    {_shorten(example.text)}" for example in problem.examples]
            rest = problem.count - len(problem.examples)
            if problem.examples and rest > 0:
                lines.append(f"    and {rest:,} more")
            parts.append("\n".join(lines))
        if self.anchors:
            parts.append("\n".join(anchor_lines(self.anchors)))
        if self.unread_images:
            parts.append(f"interrupted: {self.unread_images:,} images were not read")
        problems = sum(problem.level != NOTE for problem in self.problems)
        if problems or not self.unread_images:
            parts.append(f"problems: {problems}" if problems else "nothing is wrong")
        return "\n\n".join(parts)


def summarize_split(split: Split, all_used: list[UsedData]) -> SplitSummary:
    """Count the images, boxes, classes and used objects of a split.

    Args:
        split: The content of an annotation file.
        all_used: The data of the loaders. If several of them read the file for the split, only the
            data of the first one are counted.
    """
    counts = (len(part) for part in (split.images, split.table, split.classes))
    names = split.name.split(", ")
    used_images, objects = None, dict.fromkeys(split.classes, 0)
    for used in all_used:
        parts = [part for part in used.parts if part.ann_file == split.ann_file]
        if parts and used.name.split(", ")[0] in names:
            used_images = sum(len(part.image_ids) for part in parts)
            for part in parts:
                for name, count in part.objects.items():
                    objects[name] += count
            break
    return SplitSummary(split.name, split.ann_file, *counts, used_images, objects)


def summary_table(summaries: list[SplitSummary]) -> str:
    """Return a table of the checked data sets."""
    header = ("data", "images", "boxes", "classes", "annotations")
    rows = [
        (
            summary.data,
            f"{summary.images:,}",
            f"{summary.boxes:,}",
            str(summary.classes),
            summary.ann_file,
        )
        for summary in summaries
    ]
    return text_table(header, rows)


def anchor_lines(fit: AnchorFit) -> list[str]:
    """Return the comparison of boxes and anchors as lines of text."""
    width, height = fit.input_wh
    return [
        f"{fit.boxes:,} training boxes at {width} x {height}, before augmentation "
        "(percentiles 5, 25, 50, 75, 95)",
        f"    side (square root of the area): {_join_numbers(fit.sides)} pixels",
        f"    width / height: {_join_numbers(fit.ratios)}",
        f"boxes that an anchor matches (IoU of {fit.iou:g} or more)",
        *(f"    {line}" for line in _match_table(fit).splitlines()),
    ]


def _match_table(fit: AnchorFit) -> str:
    rows = [
        (part.name, f"{part.boxes:,}", f"{part.side:.0f}", f"{100 * part.matched:.1f} %")
        for part in fit.classes
    ]
    rows.append(("all", f"{fit.boxes:,}", f"{fit.sides[2]:.0f}", f"{100 * fit.matched:.1f} %"))
    return text_table(("class", "boxes", "median side", "matched"), rows)


def _join_numbers(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 3] + "..."
