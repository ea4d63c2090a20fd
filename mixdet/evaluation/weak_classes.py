"""What to do about a class that a detector does not find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

WEAK_AP50 = 0.05
FEW_OBJECTS = 100


def weak_class_note(name: str, objects: Mapping[str, int] | None, where: str = "") -> str:
    """Return a sentence about a class whose AP50 is below `WEAK_AP50`.

    Args:
        name: Name of the class.
        objects: Number of objects of each class in the training data, or None if it is unknown.
        where: Which detectors the sentence is about, such as ` in A and B`. Empty for a single one.
    """
    text = f"{name}: AP50 is below {100 * WEAK_AP50:.0f} %{where}"
    if objects is None:
        count, remedy = None, "check the number and sizes of its objects with tools/check_data.py"
    else:
        count = objects.get(name, 0)
        if not count:
            remedy = "add images that show it, or correct its name in metainfo.classes"
        elif count < FEW_OBJECTS:
            remedy = "add images that show it, and train longer"
        else:
            remedy = (
                "train longer, and use a larger input if its objects are small (see "
                "tools/check_data.py)"
            )
    if count is not None:
        plural = "object" if count == 1 else "objects"
        text += f", and the training data have {count} {plural} of it"
    return f"{text}: {remedy}"


def find_weak_classes(ap50: Mapping[str, float]) -> Iterable[str]:
    """Yield the classes whose AP50 (0 to 1) is below `WEAK_AP50`. An AP50 of NaN is ignored."""
    return (name for name, value in ap50.items() if value < WEAK_AP50)
