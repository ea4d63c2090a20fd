"""AP and AP50 of each class in a comparison, from `matches.npz`."""

from __future__ import annotations

from collections.abc import Sequence

from mixdet.comparison.comparison_folder import Comparison
from mixdet.comparison.image_matches import MatchFile
from mixdet.comparison.row_summary import RowSummary
from mixdet.evaluation.weak_classes import find_weak_classes, weak_class_note


def class_table(
    comparison: Comparison, rows: Sequence[RowSummary]
) -> tuple[list[str], list[list[str]]] | None:
    """Return the titles and the cells of a table with a line for each class.

    Returns:
        The titles, and the cells of each class. None if `matches.npz` has no run.
    """
    scores = _scores(comparison, rows)
    classes = list(dict.fromkeys(name for by_class in scores.values() for name in by_class))
    if not classes:
        return None
    objects = _train_objects(comparison)
    cells = []
    for name in classes:
        count = "-" if objects is None else str(objects.get(name, 0))
        pairs = (scores[row.name].get(name) for row in rows)
        cells.append([name, count, *(_percent(pair) for pair in pairs)])
    return ["class", "training objects", *(row.name for row in rows)], cells


def class_notes(comparison: Comparison, rows: Sequence[RowSummary]) -> list[str]:
    """Return the notes below the table: what it shows, and which classes are not found."""
    scores = _scores(comparison, rows)
    weak: dict[str, list[str]] = {}
    for row, by_class in scores.items():
        for name in find_weak_classes({name: pair[1] for name, pair in by_class.items()}):
            weak.setdefault(name, []).append(row)
    objects = _train_objects(comparison)
    measured = [row for row in scores if scores[row]]
    return [
        "AP / AP50 of each class in percent, the mean over the seeds.",
        *(
            weak_class_note(
                name, objects, " in all rows" if names == measured else f" in {', '.join(names)}"
            )
            for name, names in weak.items()
        ),
    ]


def _scores(
    comparison: Comparison, rows: Sequence[RowSummary]
) -> dict[str, dict[str, tuple[float, float]]]:
    matches = MatchFile.read(comparison.folder)
    return {row.name: matches.class_scores(row.name, comparison.runs_of(row.name)) for row in rows}


def _train_objects(comparison: Comparison) -> dict[str, int] | None:
    """Return the number of training objects by class, from the first row that has it."""
    counts = (record.train_objects for record in comparison.rows.values())
    return next((count for count in counts if count is not None), None)


def _percent(pair: tuple[float, float] | None) -> str:
    return "-" if pair is None else " / ".join(f"{100 * value:.1f}" for value in pair)
