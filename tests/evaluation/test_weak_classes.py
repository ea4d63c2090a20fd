"""A note names each class with an AP50 near 0, the number of its objects, and a remedy."""

from __future__ import annotations

import math

import pytest

from mixdet.evaluation.weak_classes import find_weak_classes, weak_class_note


def test_classes_with_an_ap50_below_5_percent_are_weak():
    assert list(find_weak_classes({"a": 0.0, "b": 0.0499, "c": 0.05, "d": math.nan})) == ["a", "b"]


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ({"bolt": 12}, ["have 12 objects of it", "add images that show it"]),
        ({"bolt": 1}, ["have 1 object of it", "add images that show it"]),
        ({"bolt": 5000}, ["have 5000 objects", "train longer", "larger input"]),
        ({}, ["have 0 objects", "metainfo.classes"]),
        (None, ["tools/check_data.py"]),
    ],
)
def test_the_note_states_the_number_of_objects_and_a_remedy(objects, words):
    note = weak_class_note("bolt", objects)
    assert note.startswith("bolt: AP50 is below 5 %")
    assert all(word in note for word in words)
    assert "\n" not in note
