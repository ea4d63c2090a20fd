#!/usr/bin/env bash
# mmengine 0.10.7: MLflowVisBackend with its default arguments does not work with MLflow 3.
#
# The backend always sets a tracking URI. Without the argument `tracking_uri`, it sets
# file://<save_dir>, so the environment variable MLFLOW_TRACKING_URI has no effect. MLflow 3.17
# refuses to store runs in files. The first call of the backend therefore ends with:
#   MlflowException: The filesystem tracking backend (e.g., './mlruns') is in maintenance mode ...
# So a training run fails during its setup. Remedy: tracking_uri="sqlite:///mlflow.db".
#
# Output seen with mmengine 0.10.7, mlflow 3.17.2, torch 2.14.1 and Python 3.11:
#   default: MlflowException: The filesystem tracking backend (e.g., './mlruns') is in maintenance m
#   database: logged 0.5
#
# Exit code 0: as stated. Exit code 1: the behavior has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mmengine==0.10.7 mlflow==3.17.2 torch==2.14.1 \
  torchvision==0.29.1 opencv-python-headless setuptools
cd "$folder"
MLFLOW_TRACKING_URI="sqlite:///$folder/environment.db" "$folder/venv/bin/python" - <<'PYTHON'
import os
import sys

from mlflow.exceptions import MlflowException
from mmengine.visualization import MLflowVisBackend

os.environ.pop("MLFLOW_ALLOW_FILE_STORE", None)
database = os.environ["MLFLOW_TRACKING_URI"]
refused = False
try:
    MLflowVisBackend("default").add_scalar("loss", 0.5)
except MlflowException as error:
    refused = "filesystem tracking backend" in str(error)
    print(f"default: MlflowException: {str(error)[:70]}")
backend = MLflowVisBackend("database", tracking_uri=database)
backend.add_scalar("loss", 0.5)
run = backend.experiment.active_run().info.run_id
value = backend.experiment.get_run(run).data.metrics["loss"]
print(f"database: logged {value}")
sys.exit(0 if refused and value == 0.5 else 1)
PYTHON
