"""The option `--minutes` measures a training, chooses its length, and adapts its schedules."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.registry import HOOKS
from mmengine.config import Config
from mmengine.hooks import Hook

from mixdet import launch
from mixdet.config.read import load_config
from mixdet.engine import training_length
from mixdet.engine.schedules import stretch_schedules
from mixdet.engine.time_budget import TrainingCosts, measure_costs
from mixdet.engine.training_length import TrainingLength, fit_length, length_for, stored_length
from mixdet.errors import MixDetError
from tests.tiny import IMAGES, write_config

pytestmark = pytest.mark.usefixtures("quick")

COSTS = TrainingCosts(
    clock="CPU",
    start=12.0,
    iteration=0.5,
    epoch=2.0,
    val_image=0.05,
    validation=1.0,
    iterations=60,
    val_images=100,
)
TICKS = "custom_hooks = [dict(type='Ticks')]\n"
BY_ITERATIONS = """
train_cfg = dict(type='IterBasedTrainLoop', max_iters=8, val_interval=8)
train_dataloader['sampler'] = dict(type='InfiniteSampler')
param_scheduler = [dict(type='MultiStepLR', milestones=[4], by_epoch=False)]
log_processor = dict(type='LogProcessor', by_epoch=False)
default_hooks['checkpoint'] = dict(type='SafeCheckpointHook', by_epoch=False, interval=100)
"""


@HOOKS.register_module()
class Ticks(Hook):
    """Advance a fake clock: by 2 s per iteration, by 5 s more per epoch, and so on."""

    now = 0.0

    @classmethod
    def tick(cls, seconds: float) -> None:
        cls.now += seconds

    def before_train(self, runner) -> None:
        self.tick(100)

    def before_train_epoch(self, runner) -> None:
        self.tick(5)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        # the first iterations are slower
        self.tick(2 if runner.iter >= 4 else 50)

    def before_val(self, runner) -> None:
        self.tick(3)

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.tick(0.7)


def total_seconds(costs: TrainingCosts, epochs: int, interval: int) -> float:
    """Add up the seconds of a training, epoch by epoch."""
    seconds = costs.start
    for epoch in range(1, epochs + 1):
        seconds += costs.epoch + costs.iterations * costs.iteration
        if epoch % interval == 0 or epoch == epochs:
            seconds += costs.validation + costs.val_images * costs.val_image
    return seconds


def test_iterations_epochs_and_validations_are_timed_without_the_first_iterations(tmp_path, images):
    cfg = load_config(str(write_config(tmp_path, images, extra=TICKS)))
    before = copy.deepcopy(cfg.to_dict())
    costs = measure_costs(cfg, clock=lambda: Ticks.now, started=1000)
    assert costs.iteration == pytest.approx(2)
    assert costs.epoch == pytest.approx(5)
    assert (costs.iterations, costs.val_images) == (4, IMAGES)  # 14 images in batches of 4
    assert costs.val_images * costs.val_image == pytest.approx(4 * 0.7)
    assert costs.validation == pytest.approx(3)
    # The start of the process, `before_train`, and 48 s for each of the 4 slower iterations
    assert costs.start == pytest.approx(1000 + 100 + 4 * 48)
    assert cfg.to_dict() == before
    assert [*(tmp_path / "work").iterdir()] == []


def test_a_loop_by_iterations_is_timed_too(tmp_path, images):
    path = write_config(tmp_path, images, extra=TICKS + BY_ITERATIONS)
    length = length_for(load_config(str(path)), minutes=60, clock=lambda: Ticks.now)
    assert length.unit == "iterations"
    # The start takes 105 s, the 4 slower iterations 4 * 48 s more, and 5 validations 5.8 s each
    assert length.count == pytest.approx((3600 - 105 - 192 - 5 * 5.8) / 2, abs=1)
    assert length.val_interval * 4 < length.count <= length.val_interval * 5


def test_another_kind_of_loop_is_refused(tmp_path, images):
    cfg = load_config(str(write_config(tmp_path, images)))
    cfg.train_cfg.type = "ValLoop"
    with pytest.raises(MixDetError, match=r"--minutes: train_cfg.type=ValLoop is not derived"):
        length_for(cfg, 1)


@pytest.mark.parametrize("minutes", [3, 15, 16, 90, 1000])
def test_as_many_epochs_are_chosen_as_fit(minutes):
    length = fit_length(COSTS, minutes)
    validations = -(-length.count // length.val_interval)
    assert 1 <= validations <= 5
    seconds = total_seconds(COSTS, length.count, length.val_interval)
    assert seconds == pytest.approx(60 * length.expected_minutes)
    assert seconds <= 60 * minutes
    # One more epoch, and the validations that were left out, would not fit
    spare = COSTS.epoch + COSTS.iterations * COSTS.iteration + (5 - validations) * 6
    assert seconds + spare > 60 * minutes
    assert length.fits


def test_twice_the_minutes_are_about_twice_the_epochs():
    short, long = (fit_length(COSTS, minutes).count for minutes in (30, 60))
    assert 1.9 < long / short < 2.1


def test_at_least_one_epoch_is_trained():
    length = fit_length(COSTS, 0.5)
    assert (length.count, length.val_interval, length.fits) == (1, 1, False)
    assert length.expected_minutes * 60 == pytest.approx(total_seconds(COSTS, 1, 1))


def test_there_are_fewer_validations_if_they_are_slow():
    slow = TrainingCosts(**{**vars(COSTS), "val_image": 1.0})  # 101 s for a validation
    assert fit_length(slow, 15).val_interval == fit_length(slow, 15).count
    no_validation = TrainingCosts(**{**vars(COSTS), "val_images": 0})
    assert fit_length(no_validation, 15).expected_minutes <= 15


def test_schedules_keep_the_warm_up_and_end_with_the_training():
    schedules = [
        dict(type="LinearLR", by_epoch=False, begin=0, end=500),
        dict(type="CosineAnnealingLR", by_epoch=False, begin=500, end=12_000, T_max=11_500),
        dict(type="MultiStepLR", by_epoch=True, milestones=[8, 11]),
        dict(type="StepLR", by_epoch=True, step_size=4),
        dict(type="CosineRestartLR", by_epoch=False, periods=[500, 11_500]),
        dict(type="CosineAnnealingLR", eta_min=0),  # mmengine ends it with the training
    ]
    stretch_schedules(schedules, 12_000, 23_500, 1000)  # 23,000 after warm-up instead of 11,500
    assert schedules[0] == dict(type="LinearLR", by_epoch=False, begin=0, end=500)
    assert [schedules[1][key] for key in ("begin", "T_max", "end")] == [500, 23_000, 23_500]
    assert schedules[2]["milestones"] == [16, 22]  # 500 + 2 * 7500 and 500 + 2 * 10,500
    assert schedules[3]["step_size"] == 8
    assert schedules[4]["periods"] == [500, 23_000]
    assert schedules[5] == dict(type="CosineAnnealingLR", eta_min=0)


def test_a_warm_up_longer_than_half_of_the_training_becomes_shorter():
    schedules = {
        "generator": [dict(type="LinearLR", by_epoch=False, end=500)],
        "other": dict(type="MultiStepLR", by_epoch=False, milestones=[600, 900]),
    }
    stretch_schedules(schedules, 12_000, 600, 100)
    assert schedules["generator"][0]["end"] == 25
    assert schedules["other"]["milestones"] == [30, 45]


def test_the_length_is_written_into_the_config():
    cfg = Config(
        dict(
            train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=10, dynamic_intervals=[(8, 1)]),
            param_scheduler=[dict(type="MultiStepLR", milestones=[5])],
            custom_hooks=[dict(type="PipelineSwitchHook", switch_epoch=8)],
        )
    )
    TrainingLength(15, "epochs", 20, 4, 60).apply(cfg)
    assert cfg.train_cfg == dict(type="EpochBasedTrainLoop", max_epochs=20, val_interval=4)
    assert cfg.param_scheduler[0].milestones == [10]
    assert cfg.custom_hooks[0].switch_epoch == 16


@pytest.mark.parametrize(
    ("count", "begin_epoch", "begin_iter", "save_begin", "last_epochs", "default_last"),
    [
        (300, 100, 60, 240, 60, 15),
        (30, 10, 6, 24, 6, 2),
        (1, 0, 0, 0, 0, 0),
        (600, 200, 120, 480, 120, 30),
    ],
)
def test_what_hooks_do_keeps_its_place_in_the_training(
    count, begin_epoch, begin_iter, save_begin, last_epochs, default_last
):
    hooks = [
        dict(type="EMAHook", begin_epoch=100),
        dict(type="EMAHook", begin_iter=60),
        dict(type="YOLOXModeSwitchHook", num_last_epochs=60),
        dict(type="mmdet.YOLOXModeSwitchHook"),
    ]
    cfg = Config(
        dict(
            train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=300),
            custom_hooks=hooks,
            default_hooks=dict(checkpoint=dict(type="CheckpointHook", save_begin=240), no=None),
        )
    )
    TrainingLength(15, "epochs", count, 1, 2).apply(cfg)
    epochs, iterations, switch, default = cfg.custom_hooks
    assert (epochs.begin_epoch, iterations.begin_iter) == (begin_epoch, begin_iter)
    assert cfg.default_hooks.checkpoint.save_begin == save_begin
    assert switch.num_last_epochs == last_epochs
    assert default.get("num_last_epochs", 15) == default_last


def test_a_hook_by_iterations_keeps_its_place_in_the_training():
    checkpoint = dict(type="CheckpointHook", by_epoch=False, save_begin=500)
    cfg = Config(
        dict(
            train_cfg=dict(type="IterBasedTrainLoop", max_iters=1000),
            custom_hooks=[dict(type="EMAHook", begin_iter=250)],
            default_hooks=dict(checkpoint=checkpoint),
        )
    )
    TrainingLength(15, "iterations", 100, 10, 60).apply(cfg)
    assert cfg.custom_hooks[0].begin_iter == 25
    assert cfg.default_hooks.checkpoint.save_begin == 50


def test_a_training_in_minutes_equals_one_of_as_many_epochs_and_resumes(
    tmp_path, images, monkeypatch, capsys
):
    def measure(cfg, *arguments):
        assert measure_costs(cfg, *arguments).clock == "CPU"
        # The start takes 20 s. Three epochs of 10 s and 5 validations fit into the rest of a minute
        return TrainingCosts("CPU", 20.0, 2.5, 0.0, 0.1, 0.0, 4, 14)

    monkeypatch.setattr(training_length, "measure_costs", measure)
    paths = [write_config(tmp_path / name, images, epochs=3) for name in ("plain", "minutes")]
    launch.train(str(paths[0]))
    launch.train(str(paths[1]), minutes=1)
    assert (
        "--minutes 1: 3 epochs, validated every 1 and at the end: about" in capsys.readouterr().out
    )
    weights = [
        torch.load(tmp_path / name / "work/epoch_3.pth", weights_only=True)["state_dict"]
        for name in ("plain", "minutes")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    work = tmp_path / "minutes/work"
    (work / "epoch_3.pth").unlink()
    launch.train(str(paths[1]), minutes=99, resume=str(work / "epoch_2.pth"))
    assert "the resumed run keeps its 3 epochs" in capsys.readouterr().out
    assert (work / "epoch_3.pth").is_file()
    assert not (work / "epoch_4.pth").exists()


def test_a_length_can_be_chosen_without_training(tmp_path, images):
    config = write_config(tmp_path, images)
    length = launch.choose_length(str(config), 5, str(tmp_path / "out"), started=1000)
    assert (length.count, length.fits) == (1, False)  # 1000 s have passed, more than 5 minutes
    assert [*(tmp_path / "out").iterdir()] == []


def test_a_checkpoint_of_a_run_without_minutes_states_its_length_too(trained):
    length = stored_length(str(trained[1]))
    assert (length.unit, length.count, length.val_interval, length.iterations) == (
        "epochs",
        1,
        1,
        4,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(minutes=0), "--minutes 0: give a number above 0"),
        (dict(minutes=float("nan")), "--minutes nan: give a number above 0"),
        (dict(minutes=float("inf")), "--minutes inf: give a number above 0"),
        (dict(minutes=1, launcher="pytorch"), "--launcher pytorch starts several"),
        (dict(minutes=1, cfg_options=["train_cfg.max_epochs=3"]), "leave --minutes or"),
    ],
)
def test_minutes_that_cannot_be_used_are_refused(tmp_path, images, arguments, words):
    with pytest.raises(MixDetError, match=words):
        launch.train(str(write_config(tmp_path, images)), **arguments)
