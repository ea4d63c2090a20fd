"""The numbers of an error analysis for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from mixdet.error_analysis.detector_errors import DetectorErrors
from mixdet.error_analysis.error_kinds import MISSED_KINDS, SIZES, UNMATCHED_ROWS, WRONG_KINDS
from mixdet.error_analysis.matching import MATCH_IOU
from mixdet.error_analysis.score_curves import Rates, ScoreCurve

RATES = ("precision", "recall", "f1")


def errors_as_dict(errors: DetectorErrors) -> dict[str, Any]:
    """Return all numbers for JSON, rates from 0 to 1. What is not defined is None."""
    by_size = zip(errors.objects_by_size(), errors.missed_by_size(), strict=True)
    return {
        "iou": MATCH_IOU,
        "score_thr": errors.score_thr,
        "images": len(errors.matches.image_ids),
        "overall": _curve_dict(errors, errors.overall, errors.mean_ap, errors.mean_ap50),
        "classes": [
            {
                "name": name,
                **_curve_dict(errors, curve, ap, curve.ap50),
                "objects_by_size": _named(SIZES, objects),
                "missed_by_size": _named(SIZES, missed),
            }
            for name, curve, ap, (objects, missed) in zip(
                errors.classes, errors.curves, errors.ap, by_size, strict=True
            )
        ],
        "confusion_matrix": {
            "true": [*errors.classes, *UNMATCHED_ROWS],
            "predicted": [*errors.classes, "missed"],
            "counts": errors.errors.confusion.tolist(),
            "shares": errors.confusion_shares().tolist(),
        },
        "wrong_detections": _named(WRONG_KINDS, (_named(SIZES, n) for n in errors.wrong_kinds())),
        "missed_objects": _named(MISSED_KINDS, (_named(SIZES, n) for n in errors.missed_kinds())),
        "curve_score_thr": errors.thresholds.tolist(),
        "images_with_errors": errors.image_errors(),
    }


def _curve_dict(
    errors: DetectorErrors, curve: ScoreCurve, ap: float, ap50: float
) -> dict[str, Any]:
    best = curve.best()
    rates = [curve.at(threshold) for threshold in errors.thresholds.tolist()]
    return {
        "objects": curve.objects,
        "ap": _number(ap),
        "ap50": _number(ap50),
        "at_score_thr": _rates_dict(curve.at(errors.score_thr)),
        "best": _rates_dict(best) if best else None,
        "curve": {key: [_number(getattr(rate, key)) for rate in rates] for key in RATES},
    }


def _rates_dict(rates: Rates) -> dict[str, Any]:
    return {
        "score_thr": rates.score_thr,
        "correct": rates.correct,
        "wrong": rates.wrong,
        "missed": rates.objects - rates.correct,
        **{key: _number(getattr(rates, key)) for key in RATES},
    }


def _named(names: Iterable[str], values: Iterable) -> dict[str, Any]:
    """Return the values by name, integers of NumPy as those of Python."""
    pairs = zip(names, values, strict=True)
    return {name: int(value) if isinstance(value, np.integer) else value for name, value in pairs}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
