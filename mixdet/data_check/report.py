"""What a check found, as text and as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mixdet.data_check.anchors import AnchorFit
from mixdet.data_check.problems import LEVELS, NOTE, Problem
from mixdet.data_check.splits import Split
from mixdet.visual.tables import text_table

MOST_CHARACTERS = 200  # of an example in a terminal


@dataclass(frozen=True)
class Summary:
    """How much data there are in a split."""

    data: str
    ann_file: str
    images: int
    boxes: int
    classes: int


@dataclass(frozen=True)
class DataReport:
    """What a check found.

    Attributes:
        summaries: The data that were checked.
        problems: What is wrong with them.
        anchors: Box sizes against the anchors, for a model that has any.
    """

    summaries: list[Summary]
    problems: list[Problem]
    anchors: AnchorFit | None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; what may be meant (notes) is not."""
        return all(found.level == NOTE for found in self.problems)

    def sorted_problems(self) -> list[Problem]:
        """Worst first."""
        return sorted(self.problems, key=lambda found: LEVELS.index(found.level))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ok": self.ok,
            "data": [asdict(summary) for summary in self.summaries],
            "problems": [found.as_dict() for found in self.sorted_problems()],
            "anchors": self.anchors and self.anchors.as_dict(),
        }

    def text(self) -> str:
        """For a terminal: every problem once, with its count and its first examples."""
        parts = [summary_table(self.summaries)]
        for found in self.sorted_problems():
            lines = [f"{found.level}: {found.data} data: {found.text}: {found.count:,}"]
            lines += [f"    {_cut(example.text)}" for example in found.examples]
            rest = found.count - len(found.examples)
            if found.examples and rest > 0:
                lines.append(f"    and {rest:,} more")
            parts.append("\n".join(lines))
        if self.anchors:
            parts.append("\n".join(anchor_lines(self.anchors)))
        wrong = sum(found.level != NOTE for found in self.problems)
        parts.append(f"problems: {wrong}" if wrong else "nothing is wrong")
        return "\n\n".join(parts)


def summarize(split: Split) -> Summary:
    """Count a split."""
    counts = (len(part) for part in (split.images, split.annotations, split.classes))
    return Summary(split.name, split.ann_file, *counts)


def summary_table(summaries: list[Summary]) -> str:
    """The data that were checked."""
    header = ("data", "images", "boxes", "classes", "annotations")
    rows = [
        (each.data, f"{each.images:,}", f"{each.boxes:,}", str(each.classes), each.ann_file)
        for each in summaries
    ]
    return text_table(header, rows)


def anchor_lines(fit: AnchorFit) -> list[str]:
    """Box sizes against anchors, a line each."""
    width, height = fit.input_size
    lines = [
        f"{fit.boxes:,} training boxes at {width} x {height}, before augmentation; "
        "percentiles 5, 25, 50, 75, 95",
        f"    root of the area: {_numbers(fit.sides)} pixels",
        f"    width to height: {_numbers(fit.ratios)}",
        f"the model's {fit.anchors} anchor shapes: {fit.now}",
        f"{len(fit.clusters)} shapes found by k-means: {fit.by_clusters}",
        "    " + ", ".join(f"{width}x{height}" for width, height in fit.clusters),
    ]
    if fit.settings:
        settings = ", ".join(f"{key}={sizes}" for key, sizes in fit.settings.items())
        lines += [
            f"with sizes by quantiles, which a config takes as below: {fit.by_settings}",
            f"    model = dict(bbox_head=dict(anchor_generator=dict({settings})))",
        ]
    return lines


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."
