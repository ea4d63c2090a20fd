"""The tables of an error analysis, and their text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from mixdet.error_analysis.detector_errors import DetectorErrors
from mixdet.error_analysis.error_kinds import MISSED_KINDS, SIZES, WRONG_KINDS
from mixdet.error_analysis.matching import MATCH_IOU
from mixdet.error_analysis.score_curves import Rates
from mixdet.visual.tables import text_table

CLASS_COLUMNS = (
    *("class", "objects", "AP", "AP50", "precision", "recall", "F1"),
    *("best threshold", "precision", "recall", "F1"),
)
SIZE_COLUMNS = ("missed", *SIZES, "all")
KIND_COLUMNS = (*SIZES, "all", "share")
ADVICE = (
    "tools/predict.py takes this threshold as --score-thr, and Detector as score_thr. A threshold "
    "that was chosen on these images looks better on them than on others."
)


def errors_as_text(errors: DetectorErrors) -> str:
    """Return the tables for a terminal, in percent."""
    parts = [
        f"IoU {MATCH_IOU:g}, {threshold_text(errors)}",
        f"{text_table(CLASS_COLUMNS, [*class_rows(errors)])}\n"
        "(after AP50: at the threshold above, then at the best threshold of each class)",
        text_table(SIZE_COLUMNS, [*size_rows(errors)]),
        text_table(
            ("wrong detections", *KIND_COLUMNS), [*kind_rows(WRONG_KINDS, errors.wrong_kinds())]
        ),
        text_table(
            ("missed objects", *KIND_COLUMNS), [*kind_rows(MISSED_KINDS, errors.missed_kinds())]
        ),
    ]
    confusions = [f"{true} taken for {name} ({n})" for true, name, n in errors.confusions(5)]
    if confusions:
        parts.append(f"most frequent confusions: {', '.join(confusions)}")
    return "\n\n".join([*parts, ADVICE])


def threshold_text(errors: DetectorErrors) -> str:
    """Return a sentence that states the threshold and what it gives."""
    rates = errors.overall.at(errors.score_thr)
    origin = "the highest F1 over all classes"
    if errors.chosen:
        origin = "as given"
    elif errors.overall.best() is None:
        origin = "no detection is correct at any threshold"
    return (
        f"score threshold {errors.score_thr:g} ({origin}): precision {percent(rates.precision)}, "
        f"recall {percent(rates.recall)}, F1 {percent(rates.f1)} in percent; "
        f"{rates.correct:,} correct and {rates.wrong:,} wrong detections, "
        f"{rates.objects - rates.correct:,} of {rates.objects:,} objects missed"
    )


def class_rows(errors: DetectorErrors) -> Iterator[list[str]]:
    """Yield the cells of each class for `CLASS_COLUMNS`, and last those of all classes."""
    for name, curve, *scores in (
        *zip(
            errors.classes,
            errors.curves,
            errors.ap,
            [curve.ap50 for curve in errors.curves],
            strict=True,
        ),
        ("all classes", errors.overall, errors.mean_ap, errors.mean_ap50),
    ):
        best = curve.best()
        yield [
            name,
            f"{curve.objects:,}",
            *map(percent, scores),
            *_rate_cells(curve.at(errors.score_thr)),
            f"{best.score_thr:g}" if best else "-",
            *(_rate_cells(best) if best else "---"),
        ]


def size_rows(errors: DetectorErrors) -> Iterator[list[str]]:
    """Yield the cells of each class for `SIZE_COLUMNS`, and last those of all classes."""
    missed, objects = (
        np.column_stack([table, table.sum(1)])
        for table in (errors.missed_by_size(), errors.objects_by_size())
    )
    for name, part, whole in (
        *zip(errors.classes, missed, objects, strict=True),
        ("all classes", missed.sum(0), objects.sum(0)),
    ):
        yield [
            name,
            *(f"{m:,} of {n:,}" if n else "-" for m, n in zip(part, whole, strict=True)),
        ]


def kind_rows(kinds: Mapping[str, str], table: np.ndarray) -> Iterator[list[str]]:
    """Yield the name of each kind of error and its cells for `KIND_COLUMNS`."""
    total = table.sum()
    for kind, counts in zip(kinds, table, strict=True):
        share = counts.sum() / total if total else math.nan
        yield [kind, *(f"{count:,}" for count in (*counts, counts.sum())), percent(share)]


def percent(value: float) -> str:
    """Return a share in percent with one digit, or `-` for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _rate_cells(rates: Rates) -> list[str]:
    return [percent(value) for value in (rates.precision, rates.recall, rates.f1)]
