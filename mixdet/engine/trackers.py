"""Also log a training to MLflow, W&B or TensorBoard."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path

from mmdet.registry import VISBACKENDS
from mmengine.config import Config
from mmengine.visualization import MLflowVisBackend
from mmengine.visualization.vis_backend import force_init_env

from mixdet.errors import MixDetError

# The visualization backend of each tracker. The package of a tracker and the extra of MixDet that
# installs it have the same name as the tracker.
TRACKERS = {
    "mlflow": "NamedMLflowVisBackend",
    "tensorboard": "TensorboardVisBackend",
    "wandb": "WandbVisBackend",
}
DATABASES = ("mssql", "mysql", "postgresql", "sqlite")  # stores of MLflow, by the scheme of a URI
DATABASE_PACKAGES = ("sqlalchemy", "alembic")  # MLflow opens databases with these packages


@VISBACKENDS.register_module()
class NamedMLflowVisBackend(MLflowVisBackend):
    """mmengine's `MLflowVisBackend`, which also logs metrics with names that MLflow refuses.

    mmdet's `coco/AR@100` is logged as `coco/AR_100`.
    """

    @force_init_env
    def add_scalar(self, name: str, value: float, step: int = 0, **kwargs) -> None:
        """Log a value."""
        super().add_scalar(_known_to_mlflow(name), value, step, **kwargs)

    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, *args, **kwargs) -> None:
        """Log several values by their names."""
        named = {_known_to_mlflow(name): value for name, value in scalar_dict.items()}
        super().add_scalars(named, step, *args, **kwargs)


def _known_to_mlflow(name: str) -> str:
    return re.sub(r"[^\w\-. /]", "_", name)


def add_trackers(cfg: Config, names: Sequence[str]) -> None:
    """Add trackers to the visualizer of a config. A tracker that the config already has is kept.

    Args:
        cfg: The config, with its `work_dir`. It is changed in place.
        names: Names of trackers.

    Raises:
        MixDetError: A tracker is unknown or not installed.
    """
    for name in dict.fromkeys(names):
        if name not in TRACKERS:
            raise MixDetError(f"--tracker {name}: use one of {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise MixDetError(
                f"--tracker {name}: it is not installed: pip install 'mixdet[{name}]'"
            )
        if not cfg.get("visualizer"):
            cfg.visualizer = {"type": "DetLocalVisualizer", "name": "visualizer"}
        backends = cfg.visualizer.get("vis_backends") or []
        if not any(TRACKERS[name].endswith(backend["type"]) for backend in backends):
            cfg.visualizer.vis_backends = [*backends, {"type": TRACKERS[name]}]
    for backend in (cfg.get("visualizer") or {}).get("vis_backends") or ():
        if backend["type"] in ("MLflowVisBackend", TRACKERS["mlflow"]):
            backend["type"] = TRACKERS["mlflow"]
            if not backend.get("tracking_uri"):
                _set_mlflow_store(backend, Path(cfg.work_dir).absolute().parent)
            _require_mlflow_packages(backend["tracking_uri"])


def _set_mlflow_store(backend: dict, folder: Path) -> None:
    """Let MLflow write to `MLFLOW_TRACKING_URI`, or to a database beside the work folder.

    mmengine ignores this environment variable and writes to a folder, which MLflow 3 refuses.
    """
    backend["tracking_uri"] = os.environ.get("MLFLOW_TRACKING_URI")
    if not backend["tracking_uri"]:
        folder.mkdir(parents=True, exist_ok=True)
        backend["tracking_uri"] = f"sqlite:///{folder / 'mlflow.db'}"
        backend.setdefault("artifact_location", (folder / "mlflow_artifacts").as_uri())
    # An experiment keeps the artifact folder that it was created with. MLflow creates its default
    # experiment with another folder, so MixDet uses an experiment of another name.
    backend.setdefault("exp_name", os.environ.get("MLFLOW_EXPERIMENT_NAME", "mixdet"))


def _require_mlflow_packages(tracking_uri: str) -> None:
    """Refuse a database if a package is missing, as with `mlflow-skinny`, which opens no databases.

    Raises:
        MixDetError: A package is missing.
    """
    if tracking_uri.partition(":")[0].partition("+")[0] in DATABASES:
        missing = [name for name in DATABASE_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise MixDetError(
                f"MLflow's store {tracking_uri} is a database and needs {' and '.join(missing)}, "
                "which mlflow-skinny does not install: pip install 'mixdet[mlflow]', or set "
                "MLFLOW_TRACKING_URI to a server"
            )
