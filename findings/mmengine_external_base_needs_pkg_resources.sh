#!/usr/bin/env bash
# mmengine 0.10.7 cannot read a config whose base is in an installed package, `_base_ = "PACKAGE::..."`,
# if setuptools 81 or later is installed.
#
# mmengine asks `pkg_resources` where the package lies. setuptools 81 removed `pkg_resources`.
# mmengine does not declare setuptools as a requirement, so pip reports no conflict.
#
# Output seen (Python 3.11, mmengine 0.10.7, mmdet 3.3.0):
#   setuptools 80.9.0: model: SingleStageDetector
#   setuptools 84.2.1: ModuleNotFoundError: No module named 'pkg_resources'
#
# The script exits with 0 if the output is as above, and with 1 if the behavior has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check mmengine==0.10.7 numpy==2.4.6 \
  opencv-python==5.0.0.93 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

"$python" -m pip install --quiet --disable-pip-version-check --no-deps mmdet==3.3.0 \
  2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }

# A config that inherits from one of mmdet's configs
echo '_base_ = "mmdet::ssd/ssd300_coco.py"' > "$folder/child.py"
cat > "$folder/read.py" <<'PYTHON'
import sys
from mmengine.config import Config

try:
    print("model:", Config.fromfile(sys.argv[1]).model.type)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
PYTHON

run() {
  "$python" -m pip install --quiet --disable-pip-version-check "setuptools==$1" 2> "$folder/pip.log"
  "$python" -W ignore "$folder/read.py" "$folder/child.py" 2> /dev/null
}
old=$(run 80.9.0)
new=$(run 84.2.1)
echo "setuptools 80.9.0: $old"
echo "setuptools 84.2.1: $new"
[ "$old" = "model: SingleStageDetector" ] && [ "$new" = "ModuleNotFoundError: No module named 'pkg_resources'" ]
