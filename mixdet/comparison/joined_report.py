"""Join the comparisons of the same detectors on several data sets into one report."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from mixdet.comparison.class_scores import class_notes, class_table
from mixdet.comparison.comparison_folder import Comparison
from mixdet.comparison.report_figures import row_letter
from mixdet.comparison.report_markdown import COST_COLUMNS, markdown_list
from mixdet.comparison.report_page import fill_page, html_list
from mixdet.comparison.row_summary import (
    SIZE_METRICS,
    Spread,
    describe_difference,
    setting_notes,
    summarize_rows,
)
from mixdet.comparison.score_intervals import Interval, paired_interval
from mixdet.errors import MixDetError
from mixdet.outputs import writable_folder, write_atomically
from mixdet.visual.html_page import html_table
from mixdet.visual.svg import figure_to_svg, series_color
from mixdet.visual.tables import text_table

METRICS = {"mAP": "coco/bbox_mAP", "mAP50": "coco/bbox_mAP_50", **SIZE_METRICS}
THESE_SETS, OTHER_SETS = "these sets together", "sets as a sample"
Table = tuple[str, list[str], list[list[str]]]  # caption, titles of the columns, cells


def write_joined_report(folders: Sequence[str | Path], out: Path, command: str = "") -> str:
    """Write `report.md` and `report.html` about comparisons of the same rows on several data sets.

    The comparisons need neither their checkpoints nor their data. A data set is named after the
    folder of its comparison.

    Args:
        folders: Folders of finished comparisons. All have the same rows, the baseline first.
        out: Folder of the report. It is created if it does not exist.
        command: The command line, for the report.

    Returns:
        The report as Markdown.

    Raises:
        MixDetError: The comparisons do not have the same rows, or one is not finished, or `out` is
            the folder of a comparison.
    """
    comparisons = read_comparisons(folders)
    writable_folder("--out", out)
    if (out / "comparison.json").exists():
        raise MixDetError(
            f"--out {out} is a comparison, whose report would be lost: choose another folder"
        )
    rows = next(iter(comparisons.values())).plan.rows
    title = f"{len(rows)} detectors on {len(comparisons)} data sets"
    tables = [
        _score_table(comparisons, rows),
        *(_difference_table(comparisons, rows[0], row) for row in rows[1:]),
        *_class_tables(comparisons),
        _cost_table(comparisons),
    ]
    conclusions, notes = _conclusions(comparisons, rows), _notes(comparisons)
    parts = [f"# {title}", markdown_list(conclusions)]
    for caption, header, cells in tables:
        parts += [f"## {caption}", text_table(header, cells, markdown=True)]
    parts += ["## Notes", markdown_list([*notes, *([f"Command: `{command}`"] if command else [])])]
    markdown = "\n\n".join(parts) + "\n"
    write_atomically(out / "report.md", markdown.encode())
    sections = [
        f"<h2>{escape(caption)}</h2>{html_table(header, cells)}"
        for caption, header, cells in tables
    ]
    page = fill_page(
        title,
        html_list(conclusions) + "".join(sections) + "<h2>Notes</h2>" + html_list(notes),
        command,
        ", ".join(f"{row_letter(index)} {escape(row)}" for index, row in enumerate(rows)) + ".",
        [("Difference in mAP to A, 95 % intervals", _draw_differences(comparisons, rows))],
        left_out="The page shows no images.",
    )
    write_atomically(out / "report.html", page.encode())
    return markdown


def read_comparisons(folders: Sequence[str | Path]) -> dict[str, Comparison]:
    """Read comparisons with the same rows; return them by the name of their data set.

    Raises:
        MixDetError: See `write_joined_report`.
    """
    paths = [Path(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        raise MixDetError("--join: give the folders of two or more different comparisons")
    names = [path.resolve().name for path in paths]
    if len({*names}) < len(names):
        names = [str(path) for path in paths]
    comparisons = {name: Comparison.read(path) for name, path in zip(names, paths, strict=True)}
    first, *others = comparisons.values()
    for other in others:
        if other.plan.rows != first.plan.rows:
            raise MixDetError(
                f"--join: {first.folder} compares {', '.join(first.plan.rows)}, but {other.folder} "
                f"compares {', '.join(other.plan.rows)}: give comparisons of the same configs, in "
                "the same order"
            )
    for comparison in comparisons.values():
        missing = [row for row in first.plan.rows if not comparison.is_finished(row)]
        if missing:
            raise MixDetError(
                f"--join: {comparison.folder} lacks finished runs of {', '.join(missing)}: finish "
                "this comparison first"
            )
    return comparisons


def joined_intervals(
    differences: Mapping[str, Mapping[int, float]],
) -> tuple[Interval | None, Interval | None]:
    """Compute the mean difference over data sets with two confidence intervals.

    Args:
        differences: The difference to the baseline by data set and seed.

    Returns:
        Two intervals of the mean over the sets. Both are None if the sets have no common seed.
        The first interval is over the seeds: the differences of a seed are averaged over the sets,
        and these averages are the sample. It says how far other seeds would move the mean on these
        sets. The second interval is over the sets: their mean differences are the sample. It says
        how far other sets would move the mean, if these sets are a random sample.
    """
    seeds = set.intersection(*map(set, differences.values())) if differences else set()
    if not seeds:
        return None, None
    by_seed = {
        seed: statistics.mean(of_set[seed] for of_set in differences.values()) for seed in seeds
    }
    by_set = {
        index: statistics.mean(of_set[seed] for seed in seeds)
        for index, of_set in enumerate(differences.values())
    }
    return tuple(
        paired_interval(values, dict.fromkeys(values, 0.0)) for values in (by_seed, by_set)
    )


def _differences(
    comparisons: Mapping[str, Comparison], baseline: str, row: str, metric: str
) -> dict[str, dict[int, float]]:
    """Return the differences of a metric by data set and seed. Sets without it are left out."""
    differences = {}
    for name, comparison in comparisons.items():
        ours, theirs = comparison.scores(row, metric), comparison.scores(baseline, metric)
        paired = {seed: ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()}
        if paired:
            differences[name] = paired
    return differences


def _interval(differences: Mapping[int, float]) -> Interval:
    return paired_interval(differences, dict.fromkeys(differences, 0.0))


def _score_table(comparisons: Mapping[str, Comparison], rows: Sequence[str]) -> Table:
    cells = []
    for row in rows:
        spreads = [
            Spread.from_scores(comparison.scores(row)) for comparison in comparisons.values()
        ]
        mean = statistics.mean(spread.mean for spread in spreads)
        cells.append([row, *map(str, spreads), "-" if math.isnan(mean) else f"{mean:.1f}"])
    return (
        "mAP in percent: mean ± standard deviation over the seeds",
        [
            "config",
            *comparisons,
            "mean",
        ],
        cells,
    )


def _difference_table(comparisons: Mapping[str, Comparison], baseline: str, row: str) -> Table:
    columns = []
    for metric in METRICS.values():
        differences = _differences(comparisons, baseline, row, metric)
        together = joined_intervals(differences)
        columns.append(
            [
                *(
                    describe_difference(_interval(differences[name]))
                    if name in differences
                    else "-"
                    for name in comparisons
                ),
                *("-" if joined is None else describe_difference(joined) for joined in together),
            ]
        )
    names = [*comparisons, THESE_SETS, OTHER_SETS]
    cells = [list(line) for line in zip(names, *columns, strict=True)]
    return f"{row}: difference to {baseline}", ["data set", *METRICS], cells


def _class_tables(comparisons: Mapping[str, Comparison]) -> list[Table]:
    """Return a table of AP and AP50 of each class for each data set that has them."""
    caption = "AP / AP50 of each class in percent, the mean over the seeds"
    tables = {
        name: class_table(comparison, summarize_rows(comparison))
        for name, comparison in comparisons.items()
    }
    return [(f"{name}: {caption}", *table) for name, table in tables.items() if table]


def _cost_table(comparisons: Mapping[str, Comparison]) -> Table:
    titles = ["data set", "config", "seeds", *(title for title, _ in COST_COLUMNS)]
    cells = [
        [name, row.name, str(row.seeds), *(cell(row) for _, cell in COST_COLUMNS)]
        for name, comparison in comparisons.items()
        for row in summarize_rows(comparison)
    ]
    return "Costs", titles, cells


def _conclusions(comparisons: Mapping[str, Comparison], rows: Sequence[str]) -> list[str]:
    """Return a sentence about each row: how it compares with the baseline over the sets."""
    baseline, *others = rows
    sentences = []
    for row in others:
        differences = _differences(comparisons, baseline, row, METRICS["mAP"])
        fixed, sampled = joined_intervals(differences)
        if fixed is None:
            sentences.append(f"{row}: no seed is common to all sets.")
            continue
        intervals = {name: _interval(differences[name]) for name in differences}
        better = [name for name, interval in intervals.items() if interval.low > 0]
        worse = [name for name, interval in intervals.items() if interval.high < 0]
        sentences.append(
            f"{row}: on these {len(differences)} sets together, {_in_words(fixed, baseline)}. "
            f"Taken set by set, by {len(intervals)} intervals of 95 % each, which are not "
            f"corrected for their number, it is better on {', '.join(better) or 'none'} and worse "
            f"on {', '.join(worse) or 'none'}. For other sets, if these sets are a random sample "
            f"of them, {_in_words(sampled, baseline)}."
        )
    return sentences


def _in_words(interval: Interval, baseline: str) -> str:
    ends = f"{interval.mean:+.1f} mAP [{interval.low:+.1f}, {interval.high:+.1f}]"
    if math.isinf(interval.low):
        ends = f"{interval.mean:+.1f} mAP, spread unknown"
    if not interval.separable:
        return f"it is not separable from {baseline} ({ends})"
    return f"it is {'better' if interval.mean > 0 else 'worse'} than {baseline} ({ends})"


def _notes(comparisons: Mapping[str, Comparison]) -> list[str]:
    notes = [
        "Each data set: the difference in percent, paired by seed, with a 95 % confidence interval "
        "over the seeds. A difference is printed as not separable if its interval contains zero, "
        "which does not mean equal.",
        f"{THESE_SETS.capitalize()}: the differences of a seed are averaged over the sets with "
        "equal weights, and the interval is over the seeds (Student's t below 8 seeds, BCa "
        "bootstrap else). The sets are fixed. The result generalizes to other trainings on these "
        "sets, not to other sets.",
        f"{OTHER_SETS.capitalize()}: the same mean, and the interval is over the mean differences "
        "of the sets. The result generalizes to other sets, as far as these are a random sample of "
        "them. "
        f"With {len(comparisons)} sets, the interval is wide.",
        "A set is left out of a metric that it has no object for, such as small objects (-). The "
        "intervals over several sets use only seeds that all sets have.",
        "Each interval has 95 % confidence by itself. All intervals together have less.",
    ]
    sets_of: dict[str, list[str]] = {}  # a note that several sets share is printed once
    for name, comparison in comparisons.items():
        rows = summarize_rows(comparison)
        for note in (*setting_notes(comparison, rows), *class_notes(comparison, rows)[1:]):
            sets_of.setdefault(note, []).append(name)
    for note, names in sets_of.items():
        notes.append(note if len(names) == len(comparisons) else f"{', '.join(names)}: {note}")
    return notes


def _draw_differences(comparisons: Mapping[str, Comparison], rows: Sequence[str]) -> str:
    """Draw the difference in mAP of each row on each set, and over the sets, with intervals."""
    lines = [*comparisons, THESE_SETS, OTHER_SETS]

    def draw(axes) -> None:
        for index, row in enumerate(rows[1:], 1):
            differences = _differences(comparisons, rows[0], row, METRICS["mAP"])
            together = zip((THESE_SETS, OTHER_SETS), joined_intervals(differences), strict=True)
            intervals = {name: _interval(differences[name]) for name in differences} | dict(
                together
            )
            for name, interval in intervals.items():
                if interval is None:
                    continue
                y = lines.index(name) + 0.6 * (index / len(rows) - 0.5)
                if math.isfinite(interval.low):
                    axes.plot(interval[1:], [y, y], color=series_color(index), lw=2)
                axes.plot(interval.mean, y, "o", color=series_color(index), ms=5)
                axes.annotate(
                    row_letter(index),
                    (interval.mean, y),
                    (0, 4),
                    fontsize=7,
                    textcoords="offset points",
                    color=series_color(index),
                )
        axes.axvline(0, color="#444", lw=1)
        axes.set(yticks=range(len(lines)), xlabel="difference in mAP to the baseline A (points)")
        axes.set_yticklabels(lines)
        axes.invert_yaxis()

    return figure_to_svg(draw)
