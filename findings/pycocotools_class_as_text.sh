#!/usr/bin/env bash
# pycocotools 2.0.11: COCO.getCatIds(catNms="...") returns wrong ids if it gets a string in place of a
# list.
#
# `catNms` is documented as an array of names. A string raises no error, but `name in catNms` then
# looks for substrings: getCatIds(catNms="seahorse") returns the ids of the categories "sea" and
# "horse", although no category is called "seahorse". A config passes a string if the comma of a tuple
# with one name is missing: classes=("seahorse").
#
# Output seen:
#   list: [3]
#   text: [1, 2, 3]
#   text that is no category: [1, 2]
#
# Exit code 0: the behavior is as stated. Exit code 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 numpy==2.2.6 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from contextlib import redirect_stdout
from io import StringIO

from pycocotools.coco import COCO


def ids(second, names):
    """Return the ids that pycocotools finds for the names among three categories."""
    coco = COCO()
    categories = ["sea", "horse", second]
    coco.dataset = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(categories, start=1)],
    }
    with redirect_stdout(StringIO()):
        coco.createIndex()
    return coco.getCatIds(catNms=names)


seen = [ids("seahorse", ["seahorse"]), ids("seahorse", "seahorse"), ids("dog", "seahorse")]
print("list:", seen[0])
print("text:", seen[1])
print("text that is no category:", seen[2])
sys.exit(seen != [[3], [1, 2, 3], [1, 2]])
PYTHON
