"""A training is logged to MLflow, W&B and TensorBoard. No test needs an internet connection."""

from __future__ import annotations

import json
import math

import pytest
from mmengine.config import Config

from mixdet import launch
from mixdet.engine import trackers
from mixdet.errors import MixDetError
from mixdet.evaluation.coco_scores import STATS, class_metric_names
from tests.tiny import write_config

pytestmark = pytest.mark.usefixtures("quick")

CLASSWISE = "val_evaluator['classwise'] = True\n"
METRICS = {f"coco/{name}" for name in (*STATS, "AP/dark", "AP/bright")}


def train(folder, images, *names: str, extra: str = "") -> dict[str, float]:
    """Train for one epoch; return the validation metrics that mmengine wrote to scalars.json."""
    config = write_config(folder, images, 1, CLASSWISE + extra)
    launch.train(str(config), tracker=names)
    (file,) = folder.glob("work/*/vis_data/scalars.json")
    *_, last = map(json.loads, file.open())
    return {name: last[name] for name in METRICS & last.keys()}


def mlflow_metrics(folder) -> dict[str, float]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mixdet")
    (run,) = client.search_runs([experiment.experiment_id])
    assert client.list_artifacts(run.info.run_id)
    return run.data.metrics


@pytest.mark.parametrize("extra", ["", "vis_backends = [dict(type='MLflowVisBackend')]\n"])
def test_mlflow_gets_all_metrics_under_their_names(images, tmp_path, monkeypatch, extra):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    extra += "visualizer['vis_backends'] += vis_backends[:1]\n" * bool(extra)
    logged = train(tmp_path, images, *() if extra else ("mlflow",), extra=extra)
    metrics = mlflow_metrics(tmp_path)
    assert logged.keys() == METRICS
    assert {name: metrics[name] for name in METRICS} == pytest.approx(logged)


def test_mlflow_gets_the_metrics_of_another_evaluator(images, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    other = "val_evaluator.update(type='CocoMetric', metric=['bbox', 'proposal'])\n"
    train(tmp_path, images, "mlflow", extra=other)
    assert {"coco/bbox_mAP", "coco/AR_100"} <= mlflow_metrics(tmp_path).keys()


def test_wandb_gets_all_metrics_under_their_names(images, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    summary = {}
    finish = wandb.finish
    monkeypatch.setattr(
        wandb, "join", lambda: (summary.update(dict(wandb.run.summary)), finish()), raising=False
    )
    logged = train(tmp_path, images, "wandb")
    assert {name: summary[name] for name in METRICS} == pytest.approx(logged)
    assert list(tmp_path.rglob("*.wandb"))


def test_tensorboard_gets_all_metrics_under_their_names(images, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged = train(tmp_path, images, "tensorboard")
    (events,) = tmp_path.rglob("events.out.tfevents*")
    scalars = EventAccumulator(str(events))
    scalars.Reload()
    for name, value in logged.items():
        assert scalars.Scalars(name)[-1].value == pytest.approx(value)


def test_a_tracker_that_is_named_twice_is_added_once():
    cfg = Config({"work_dir": "w", "visualizer": None})
    trackers.TRACKERS["json"], package = "LocalVisBackend", "json"  # `json` is always installed
    try:
        trackers.add_trackers(cfg, [package, package])
        trackers.add_trackers(cfg, [package])
    finally:
        del trackers.TRACKERS["json"]
    assert cfg.visualizer.vis_backends == [{"type": "LocalVisBackend"}]


def test_unknown_and_missing_trackers_are_refused(monkeypatch):
    cfg = Config({"work_dir": "w"})
    with pytest.raises(MixDetError, match="--tracker neptune: use one of mlflow, tensorboard"):
        trackers.add_trackers(cfg, ["neptune"])
    monkeypatch.setitem(trackers.TRACKERS, "no_such_package", "Backend")
    with pytest.raises(MixDetError, match=r"not installed: pip install 'mixdet\[no_such"):
        trackers.add_trackers(cfg, ["no_such_package"])


def test_mlflow_uses_the_server_of_the_environment_variable(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    cfg = Config({"work_dir": "w", "visualizer": {"vis_backends": [{"type": "MLflowVisBackend"}]}})
    trackers.add_trackers(cfg, [])
    (backend,) = cfg.visualizer.vis_backends
    assert backend.tracking_uri == "http://server"


CLASSES = ["cat", "traffic light", "é", "a@b", "a#b", "x/y", "..", "", "Größe (m)", "a_b"]


def test_every_class_has_its_own_metric_name():
    names = class_metric_names(CLASSES)
    assert list(names) == CLASSES
    assert len(set(names.values())) == len(CLASSES)
    assert [names[name] for name in ("cat", "traffic light", "é", "a@b", "x/y")] == [
        *("AP/cat", "AP/traffic light", "AP/é", "AP/a_b", "AP/x_y")
    ]


def test_mlflow_accepts_the_names_of_all_classes_and_metrics(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.create_run(client.create_experiment("names")).info.run_id
    for name in (*STATS, *class_metric_names(CLASSES).values()):
        client.log_metric(run, f"coco/{name}", 1.0)
    assert math.isclose(client.get_run(run).data.metrics["coco/AP/_"], 1.0)


@pytest.mark.parametrize(
    ("uri", "refused"),
    [
        (None, True),
        ("sqlite:///runs.db", True),
        ("postgresql+psycopg2://user@server/db", True),
        ("http://server", False),
        ("databricks", False),
    ],
)
def test_a_database_of_mlflow_without_its_packages_is_refused(monkeypatch, tmp_path, uri, refused):
    """The package mlflow-skinny installs mlflow without the packages for databases."""
    monkeypatch.setattr(trackers, "DATABASE_PACKAGES", ("json", "no_such_package"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    backend = {"type": "MLflowVisBackend", "tracking_uri": uri}
    cfg = Config({"work_dir": str(tmp_path / "w"), "visualizer": {"vis_backends": [backend]}})
    if not refused:
        trackers.add_trackers(cfg, [])
        return
    words = r"needs no_such_package, .*mlflow-skinny.*: pip install 'mixdet\[mlflow\]', or set"
    with pytest.raises(MixDetError, match=words):
        trackers.add_trackers(cfg, [])
