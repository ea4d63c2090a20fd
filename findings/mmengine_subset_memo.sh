#!/usr/bin/env bash
# mmengine 0.10.7: an attribute of a subset of a data set can be another data set.
#
# BaseDataset.get_subset copies the attributes of a data set by copy.deepcopy. All calls in a process
# share one memo (a mutable default argument of _copy_without_annotation). The memo maps the id of
# each data set to its copy, but does not keep the data set. Once a data set is freed, an attribute
# of another one may get its id. The subset then has a data set in place of the attribute.
#
# Output seen:
#   attribute of the data set: list
#   attribute of its subset: Numbers
#
# Exits with 0 if this happens, and with 1 if it does not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mmengine==0.10.7 torch==2.14.1 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
from mmengine.dataset import BaseDataset


class Numbers(BaseDataset):
    def load_data_list(self):
        return [{"number": number} for number in range(5)]


freed = set()
for _ in range(20):
    dataset = Numbers(ann_file="")
    dataset.get_subset(2)
    freed.add(id(dataset))
    del dataset

dataset = Numbers(ann_file="")
candidates = [[] for _ in range(100_000)]  # some of them take the place of a freed data set
dataset.note = next((item for item in candidates if id(item) in freed), [])
note = dataset.get_subset(2).note
print("attribute of the data set:", type(dataset.note).__name__)
print("attribute of its subset:", type(note).__name__)
raise SystemExit(0 if isinstance(note, Numbers) else 1)
PYTHON
