"""What a comparison checks before and after its runs, with workers that do not train."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from mixdet.comparison import Comparison, Plan, train_all, training_runs
from mixdet.config.read import load_config
from mixdet.engine.training_length import TrainingLength
from mixdet.errors import MixDetError
from tests.tiny import write_config

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def plan(images, tmp_path, monkeypatch):
    """A plan of one run. Its worker writes a checkpoint and then fails."""

    def start_worker(arguments, log, environment, lock):
        log.parent.mkdir(parents=True, exist_ok=True)
        (log.parent / "epoch_1.pth").touch()
        return SimpleNamespace(poll=lambda: 1, returncode=1)

    monkeypatch.setattr(training_runs, "start_worker", start_worker)
    return Plan((str(write_config(tmp_path, images)),), (0,))


def fail(plan, folder):
    with pytest.raises(MixDetError, match="1 of the runs failed"):
        train_all(plan, folder)


def test_an_unfinished_run_of_another_version_is_not_resumed(plan, tmp_path):
    folder = tmp_path / "out"
    fail(plan, folder)
    fail(plan, folder)  # the same version is resumed
    before = (folder / "comparison.json").read_bytes()
    for changed in (
        dataclasses.replace(plan, cfg_options=("train_cfg.max_epochs=1",)),
        dataclasses.replace(plan, minutes=1),
    ):
        with pytest.raises(MixDetError, match="holds an unfinished run of another version"):
            train_all(changed, folder)
    assert (folder / "comparison.json").read_bytes() == before
    next(folder.glob("runs/*/seed_0/*.pth")).unlink()  # nothing is left to resume from
    fail(dataclasses.replace(plan, cfg_options=("train_cfg.max_epochs=1",)), folder)


def test_an_unfinished_run_keeps_its_length(plan, tmp_path, monkeypatch):
    folder, lengths = tmp_path / "out", [TrainingLength(1, "epochs", n, 1, 4) for n in (3, 5)]
    measured = []

    def choose_lengths(comparison, *_):
        if not comparison.lengths:
            measured.append(lengths[len(measured)])
            comparison.lengths[comparison.plan.rows[0]] = measured[-1]

    monkeypatch.setattr(training_runs, "choose_lengths", choose_lengths)
    plan = dataclasses.replace(plan, minutes=1)
    fail(plan, folder)
    (folder / "comparison.json").unlink()
    fail(plan, folder)
    assert measured == lengths[:1]
    stored = Comparison.read(folder)
    stored.lengths = {plan.rows[0]: lengths[1]}
    stored.write()
    with pytest.raises(MixDetError, match="holds an unfinished run of another version"):
        train_all(plan, folder)


def test_hooks_that_only_observe_do_not_make_another_version(plan):
    def fingerprints(*options):
        return training_runs._fingerprints(load_config(plan.configs[0], options), None)

    first = fingerprints()
    assert len({*first}) == 3
    for hook in ("progress", "data_check", "settings_check", "report"):
        assert fingerprints(f"default_hooks.{hook}=None")[0] == first[0]
    # a version without `ProgressHook` counted the other hooks
    assert fingerprints("default_hooks.progress=None")[2] in first
    assert first[0] not in fingerprints("default_hooks.logger.interval=7")
    assert first[0] not in fingerprints("default_hooks.checkpoint.interval=7")
