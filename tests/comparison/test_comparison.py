"""Comparisons of tiny configs: runs, resuming, refused arguments and reports."""

import dataclasses
import json
import os
import shutil
import statistics
from pathlib import Path

import pytest
import torch
from PIL import Image

from mixdet.comparison import Comparison, Plan, train_all, write_report
from mixdet.comparison.report_markdown import report_as_markdown
from mixdet.comparison.row_summary import describe_difference, summarize_rows
from mixdet.comparison.run_processes import run_environment
from mixdet.errors import MixDetError
from mixdet.evaluation import load_coco, score_boxes
from mixdet.machine import cores
from tests.tiny import CLASSES, IMAGES, write_config, write_images


def add_what_is_not_scored(ann_file):
    """Add boxes of a class that no config names, an ignored box and an image that is not used."""
    content = json.loads(ann_file.read_text())
    first = content["annotations"][0]
    content["categories"].append({"id": 9, "name": "other"})
    content["images"].append({**content["images"][0], "id": 999})
    content["annotations"] += [
        *({**box, "id": 100 + box["id"], "category_id": 9} for box in content["annotations"]),
        {**first, "id": 998, "bbox": [0, 0, 64, 64], "ignore": 1},
        {**first, "id": 999, "image_id": 999},
    ]
    ann_file.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison of two configs, which are its rows. Each config is trained with two seeds."""
    root = tmp_path_factory.mktemp("comparison")
    data = write_images(root / "data")
    folder = data / "annotations"
    shutil.copy(folder / "instances_val2017.json", folder / "tiny.json")
    add_what_is_not_scored(folder / "instances_val2017.json")
    # the second row (config) has another learning rate, which must not change the order of the data
    part = f"val_dataloader['dataset']['indices'] = {IMAGES}\n"  # leaves out the added image
    configs = [
        write_config(root / "base", data, extra=part),
        write_config(
            root / "other", data, extra=part + "optim_wrapper['optimizer']['lr'] = 0.02\n"
        ),
    ]
    plan = Plan(tuple(map(str, configs)), (0, 1), command="python tools/compare.py ...")
    train_all(plan, root / "out", processes=2)
    shutil.copytree(root / "out", root / "trained", ignore=shutil.ignore_patterns("runs"))
    comparison = Comparison.read(root / "out")
    write_report(comparison, images=2)
    return plan, comparison


def without(comparison, folder, *left_out):
    """Copy a comparison without some files. The copy names configs that do not exist."""
    shutil.copytree(comparison.folder, folder, ignore=shutil.ignore_patterns(*left_out))
    file = folder / "comparison.json"
    content = json.loads(file.read_text())
    content["configs"] = [f"/nowhere/{Path(config).name}" for config in content["configs"]]
    file.write_text(json.dumps(content))
    return Comparison.read(folder)


def expected_threads(processes):
    return int(os.environ.get("OMP_NUM_THREADS") or max(1, cores() // processes))


def test_the_threads_that_the_user_set_are_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert run_environment(2)["OMP_NUM_THREADS"] == "7"
    for unset in (lambda: monkeypatch.setenv("OMP_NUM_THREADS", ""), monkeypatch.undo):
        unset()
        expected = str(expected_threads(2))
        assert run_environment(2)["OMP_NUM_THREADS"] == expected
        assert run_environment(10_000)["OMP_NUM_THREADS"] in ("1", expected)


def test_every_run_is_recorded_with_the_scores_of_its_evaluation(compared):
    plan, comparison = compared
    read = Comparison.read(comparison.folder)
    assert read.plan == plan
    assert [(run.row, run.seed) for run in read.runs] == [
        (row, seed) for row in plan.rows for seed in (0, 1)
    ]
    for run in read.runs:
        log = (read.run_folder(run.row, run.seed) / "output.txt").read_text()
        last = log.rindex("coco/bbox_mAP:")
        assert log[last:].split()[1] == f"{run.metrics['coco/bbox_mAP']:.4f}"
        assert [epoch for epoch, _ in run.curve] == [1, 2]
        assert run.losses[-1][0] == 8
        assert run.environment["threads"] == expected_threads(processes=2)
        assert run.minutes["cpu"] > 0
        assert 0 < run.minutes["wall"] < 10
    assert len({run.losses[0][1] for run in read.runs}) > 1


def test_the_report_counts_the_boxes_that_the_metric_counts(compared, monkeypatch):
    """The interval over images and the drawn images contain only the boxes that count."""
    plan, comparison = compared
    _, other = plan.rows
    means = [
        statistics.mean(run.metrics["coco/bbox_mAP"] for run in comparison.runs_of(row).values())
        for row in plan.rows
    ]
    assert max(means) > 0
    difference, *_ = comparison.rows[other].images_interval
    assert difference == pytest.approx(means[1] - means[0], abs=1e-12)

    drawn = []
    monkeypatch.setattr(
        "mixdet.comparison.report_page.draw_sheet_image",
        lambda image, names, side: drawn.append((image, names)) or Image.new("RGB", (1, 1)),
    )
    monkeypatch.setattr(
        "mixdet.comparison.comparison_report.write_atomically", lambda path, content: None
    )
    write_report(comparison, images=100)
    tiny = json.loads(Path(comparison.folder.parent, "data/annotations/tiny.json").read_text())
    for row in range(2):
        sheet = drawn[row * IMAGES : (row + 1) * IMAGES]
        assert sum(image.objects for image, _ in sheet) == len(tiny["annotations"])
        assert {tuple(names) for _, names in sheet} == {CLASSES}
    assert len(drawn) == 2 * IMAGES


def test_the_seed_determines_the_images_of_all_rows(compared):
    # The first loss depends on the initial weights and the first batch. The seed determines both.
    _, comparison = compared
    first = {(run.row, run.seed): run.losses[0][1] for run in comparison.runs}
    base, other = comparison.plan.rows
    assert first[base, 0] == first[other, 0]
    assert first[base, 1] == first[other, 1]
    assert first[base, 0] != first[base, 1]


@pytest.mark.heavy
def test_another_seed_is_added_without_training_the_others_again(compared, tmp_path, capsys):
    plan, comparison = compared
    folder = tmp_path / "out"
    shutil.copytree(comparison.folder, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pth")}
    more = dataclasses.replace(plan, seeds=(0, 1, 2))
    extended = train_all(more, folder)
    assert "4 of 6 runs are done" in capsys.readouterr().out
    assert len(extended.runs) == 6
    assert extended.rows.keys() == {*plan.rows}  # measured again, with the third seed
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_killed_run_resumes_and_ends_with_the_same_scores(compared, tmp_path):
    plan, comparison = compared
    base = plan.rows[0]
    folder = tmp_path / "out"
    shutil.copytree(comparison.folder, folder)
    killed = Comparison.read(folder)
    whole = killed.runs.pop(0)
    assert (whole.row, whole.seed) == (base, 0)
    killed.write()
    run = killed.run_folder(base, 0)
    (run / "epoch_2.pth").unlink()
    (run / "last_checkpoint").write_text(str(run / "epoch_1.pth"))
    resumed = train_all(plan, folder).runs_of(base)[0]
    assert resumed.metrics == whole.metrics
    assert "resumed epoch: 1" in (run / "output.txt").read_text()


def test_a_changed_config_is_refused_and_nothing_is_lost(compared):
    plan, comparison = compared
    lines = (comparison.folder / "runs.jsonl").read_text()
    changed = dataclasses.replace(plan, cfg_options=("train_cfg.max_epochs=1",))
    with pytest.raises(MixDetError, match="holds runs of another version"):
        train_all(changed, comparison.folder)
    with pytest.raises(MixDetError, match="give these configs too"):
        train_all(dataclasses.replace(plan, configs=plan.configs[:1]), comparison.folder)
    assert (comparison.folder / "runs.jsonl").read_text() == lines


@pytest.mark.heavy
def test_a_run_that_fails_is_named_and_the_others_are_finished(tmp_path):
    data = write_images(tmp_path / "data")
    bad = write_config(tmp_path / "bad", data, extra="model['backbone']['type'] = 'NoNet'\n")
    good = write_config(tmp_path / "good", data)
    folder = tmp_path / "out"
    with pytest.raises(MixDetError, match=rf"1 of the runs failed: see .*{bad.stem}.*output.txt"):
        train_all(Plan((str(bad), str(good)), (0,)), folder)
    assert [run.row for run in Comparison.read(folder).runs] == [good.stem]


def test_configs_with_different_validation_data_or_the_same_name_are_refused(compared, tmp_path):
    plan, _ = compared
    other = write_config(tmp_path, write_images(tmp_path / "elsewhere"))
    with pytest.raises(MixDetError, match="same validation set"):
        train_all(Plan((plan.configs[0], str(other)), (0,)), tmp_path / "out")
    data = Path(plan.configs[0]).parents[1] / "data"
    fewer = "val_dataloader['dataset']['metainfo'] = dict(classes=('dark',))\n"
    fewer = write_config(tmp_path / "fewer", data, extra=fewer)
    with pytest.raises(MixDetError, match=r"the classes dark but .* the classes dark, bright"):
        train_all(Plan((plan.configs[0], str(fewer)), (0,)), tmp_path / "out")
    same_name = tmp_path / "same_name" / f"{plan.rows[0]}.py"
    with pytest.raises(MixDetError, match="same name"):
        train_all(Plan((plan.configs[0], str(same_name)), (0,)), tmp_path / "out")


def test_a_folder_is_used_by_one_comparison_at_a_time(compared):
    plan, comparison = compared
    with comparison.locked(), pytest.raises(MixDetError, match="uses this folder"):
        train_all(plan, comparison.folder)


def test_the_report_has_every_row_and_can_be_written_without_the_runs(compared, tmp_path):
    plan, comparison = compared
    text = (comparison.folder / "report.md").read_text()
    assert all(row in text for row in plan.rows)
    assert "Power is low with 2 seeds" in text
    shutil.copytree(comparison.folder, tmp_path / "out", ignore=shutil.ignore_patterns("runs"))
    with pytest.warns(UserWarning, match="shows no images"):
        assert write_report(Comparison.read(tmp_path / "out")) == text
    page = (tmp_path / "out" / "report.html").read_text()
    assert "const images = {}" in page
    assert "Images are left out" in page
    assert "data:image/jpeg" in (comparison.folder / "report.html").read_text()


def test_all_that_a_report_needs_is_kept_when_the_rows_end(compared, tmp_path):
    """A report needs only the files that `train_all` wrote: no configs, data or checkpoints."""
    _, comparison = compared
    folder = comparison.folder.parent / "trained"
    ended = without(Comparison.read(folder), tmp_path / "out")
    assert sorted(path.name for path in ended.folder.iterdir()) == [
        ".lock",
        "comparison.json",
        "matches.npz",
        "rows.json",
        "runs.jsonl",
    ]
    text = write_report(ended, images=0)
    assert text == (comparison.folder / "report.md").read_text()
    page = (ended.folder / "report.html").read_text()
    assert "Images are left out (--images 0)." in page
    assert "data:image" not in page.replace("data:,", "")


def test_a_report_without_the_configs_says_that_it_has_no_images(compared, tmp_path):
    _, comparison = compared
    copy = without(comparison, tmp_path / "out", "*.pth")
    with pytest.warns(UserWarning, match=r"the report is incomplete: /nowhere/.*no such config"):
        text = write_report(copy)
    assert text == (comparison.folder / "report.md").read_text()
    assert "Images are left out: /nowhere/" in (copy.folder / "report.html").read_text()


def test_a_report_says_which_numbers_it_leaves_out(compared, tmp_path):
    _, comparison = compared
    copy = without(comparison, tmp_path / "out", "runs", "rows.json", "matches.npz")
    text = write_report(copy, images=0)
    left_out = next(line for line in text.splitlines() if line.startswith("- Left out:"))
    assert "costs and latencies of all rows" in left_out
    assert "intervals over images" in left_out
    assert "AP of each class" in left_out
    assert "AP / AP50" not in text


def test_the_report_has_ap_and_ap50_of_each_class(compared):
    plan, comparison = compared
    text = (comparison.folder / "report.md").read_text()
    annotations = comparison.folder.parent / "data/annotations"
    truth = load_coco(annotations / "instances_val2017.json")
    scored = dict(category_ids=[1, 2], image_ids=range(1, IMAGES + 1))
    train = json.loads((annotations / "instances_train2017.json").read_text())["annotations"]
    for number, name in enumerate(CLASSES, 1):
        line = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
        _, objects, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        assert int(objects) == sum(box["category_id"] == number for box in train)
        for row, cell in zip(plan.rows, cells, strict=True):
            files = [comparison.run_folder(row, seed) / "val_detections.json" for seed in (0, 1)]
            scores = [score_boxes(truth, json.loads(file.read_text()), **scored) for file in files]
            ap = statistics.mean(score.per_class[name] for score in scores)
            ap50 = statistics.mean(score.per_class_50[name] for score in scores)
            assert cell == f"{100 * ap:.1f} / {100 * ap50:.1f}"


def test_the_latency_on_onnx_runtime_is_measured(compared):
    pytest.importorskip("onnxruntime")
    plan, comparison = compared
    text = (comparison.folder / "report.md").read_text()
    assert "ONNX Runtime (ms)" in text
    assert "on one thread" in text
    for row in plan.rows:
        low, median, high = comparison.rows[row].onnx_ms
        assert 0 < low <= median <= high
    without_onnx = {
        row: dataclasses.replace(record, onnx_ms=None, onnx_of="onnxruntime not installed")
        for row, record in comparison.rows.items()
    }
    text = report_as_markdown(dataclasses.replace(comparison, rows=without_onnx))
    assert "ONNX Runtime (ms)" not in text
    words = "the latency on ONNX Runtime of all rows (onnxruntime not installed)"
    assert words in text


@pytest.mark.heavy
def test_with_minutes_each_config_is_measured_once_and_its_runs_have_that_length(tmp_path, capsys):
    data = write_images(tmp_path / "data")
    configs = [str(write_config(tmp_path / name, data)) for name in ("a", "b")]
    folder = tmp_path / "out"
    plan = Plan((configs[0],), (0,), minutes=0.3)
    first = train_all(plan, folder)
    ((row, length),) = first.lengths.items()
    assert length.minutes == 0.3
    assert first.runs[0].curve[-1][0] == length.count > 2
    assert len(first.runs[0].curve) <= 5
    assert f"{row}: measured" in capsys.readouterr().out
    text = write_report(first, images=0)
    assert f"| {length.count} epochs |" in text
    assert "every run has 0.3" in text

    more = train_all(dataclasses.replace(plan, configs=tuple(configs)), folder)
    assert more.lengths[row] == length
    assert f"{row}: measured" not in capsys.readouterr().out
    for run in more.runs:
        assert run.curve[-1][0] == more.lengths[run.row].count
    with pytest.raises(MixDetError, match="--minutes or MixDet's defaults have changed"):
        train_all(dataclasses.replace(more.plan, minutes=0.4), folder)


def test_rows_with_the_keys_of_older_comparisons_are_read(compared, tmp_path):
    _, comparison = compared
    shutil.copytree(comparison.folder, tmp_path / "out", ignore=shutil.ignore_patterns("runs"))
    file = tmp_path / "out" / "rows.json"
    older = file.read_text()
    for key, old_key in (("input_hw", "input_size"), ("images_interval", "pictures_interval")):
        assert f'"{key}"' in older
        older = older.replace(f'"{key}"', f'"{old_key}"')
    file.write_text(older)
    assert Comparison.read(tmp_path / "out").rows == Comparison.read(comparison.folder).rows


def test_a_difference_whose_interval_contains_zero_is_no_gain(compared):
    _, comparison = compared
    base, other = comparison.plan.rows

    def scored(values):
        runs = [
            dataclasses.replace(run, metrics=run.metrics | {"coco/bbox_mAP": values[run.row][i]})
            for i, run in ((run.seed, run) for run in comparison.runs)
        ]
        return summarize_rows(dataclasses.replace(comparison, runs=runs))[1].difference

    noisy = scored({base: [0.40, 0.50], other: [0.45, 0.56]})
    assert describe_difference(noisy).startswith("not separable [")
    clear = scored({base: [0.40, 0.50], other: [0.450, 0.551]})
    assert describe_difference(clear).startswith(("+5.0", "+5.1"))


def test_the_score_of_a_missing_object_size_is_a_dash(compared):
    _, comparison = compared
    runs = [
        dataclasses.replace(run, metrics=run.metrics | {"coco/bbox_mAP_l": -1.0})
        for run in comparison.runs
    ]
    text = report_as_markdown(dataclasses.replace(comparison, runs=runs))
    assert text.splitlines()[2].split("|")[6].strip() == "-"


@pytest.mark.heavy
def test_the_parameters_of_the_trained_network_are_counted(tmp_path):
    """The count includes the changes that `cfg_options` made to the network of the config."""
    config = write_config(tmp_path, write_images(tmp_path / "data"), epochs=1)
    option = "model.bbox_head.use_depthwise=True"
    folder = tmp_path / "out"
    comparison = train_all(Plan((str(config),), (0,), cfg_options=(option,)), folder)
    write_report(comparison, images=1)
    ((row, record),) = comparison.rows.items()
    checkpoint = comparison.run_folder(row, 0) / "epoch_1.pth"
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert "bbox_head.cls_convs.0.1.weight" in state  # exists only with `use_depthwise`
    assert record.params == sum(
        value.numel() for name, value in state.items() if not name.endswith(statistics)
    )
