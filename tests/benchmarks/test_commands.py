"""What the commands of `python -m benchmarks` record, and which arguments they refuse."""

from __future__ import annotations

import inspect
import json
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import (
    data_loading,
    mixconv_fusing,
    scaling,
    testing,
    training_processes,
)
from benchmarks.__main__ import parse_args
from benchmarks.inference import PARTS
from benchmarks.inference_forms import MATRIX_PRODUCT
from benchmarks.input_pipeline import RECIPES
from benchmarks.networks import our_model
from benchmarks.records import MODULES, module_of
from mixdet.evaluation.evaluators import BACKENDS
from tests.conftest import ROOT
from tests.tiny import IMAGES

REQUIRED = dict.fromkeys(("input", "feed", "eval"), ("--data-root", "coco"))
REQUIRED["predict"] = ("--checkout", "other")


@pytest.mark.heavy
def test_input_times_both_pipelines(benchmark_command, coco_sample, tmp_path):
    out = tmp_path / "deep" / "input.json"
    arguments = ("--data-root", coco_sample, "--rounds", 1, "--images", 8, "--out", out)
    code, text, err = benchmark_command("input", *arguments)
    assert code == 0, err
    record = json.loads(out.read_text())
    assert record["settings"]["images"] == 8
    assert [row["recipe"] for row in record["recipes"]] == list(RECIPES)
    assert [row["workers"] for row in record["workers"]] == [0, 1, 2]
    assert {"torch", "mmdet", "opencv"} <= record["machine"]["versions"].keys()
    for row in record["recipes"]:
        mmdet, ours = row["mmdet"], row["mixdet"]
        (speedup,) = {row["speedup"][key] for key in ("low", "median", "high")}
        rates = [side["images_per_second"]["median"] for side in (ours, mmdet)]
        assert speedup == pytest.approx(rates[0] / rates[1])
        assert ("Expand" in mmdet["milliseconds"]) == (row["recipe"] == "all five steps")
        assert 0 < mmdet["decode_share"] < 1
        assert 0 < ours["decode_share"] < 1
    assert "all five steps, one core" in text


@pytest.mark.parametrize("command", MODULES)
def test_every_option_is_a_parameter_of_measure(command, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks", command, *REQUIRED.get(command, ())])
    options = vars(parse_args()).keys() - {"command", "out", "markdown"}
    assert options <= inspect.signature(module_of(command).measure).parameters.keys()


@pytest.mark.parametrize("command", ["input", "feed"])
def test_a_folder_without_coco_is_refused(refused_command, tmp_path, command):
    assert "instances_train2017.json" in refused_command(command, "--data-root", tmp_path)


def test_unknown_networks_forms_and_backends_are_refused(refused_command, tmp_path):
    message = refused_command("feed", "--data-root", tmp_path, "--network", "MixNet-Q")
    assert "MixNet-Q" in message
    assert "MixNet-S" in message
    assert "MixNet-Q" in refused_command("train", "--networks", "MixNet-Q")
    assert "lazy" in refused_command("train", "--networks", "MixNet-S", "--forms", "lazy")
    assert "MixNet-Q" in refused_command("gloo", "--networks", "MixNet-Q")
    assert "MixNet-Q" in refused_command("infer", "--network", "MixNet-Q")
    arguments = ("--data-root", tmp_path, "--networks")
    assert "MixNet-Q" in refused_command("eval", *arguments, "MixNet-Q")
    message = refused_command("eval", *arguments, "MixNet-S", "--backends", "cocotools")
    assert "'cocotools'" in message
    message = refused_command("predict", "--checkout", tmp_path)
    assert "no tools/predict.py" in message


@pytest.mark.heavy
def test_eval_measures_every_detector_and_backend(coco_sample, trained):
    record = testing.measure(
        coco_sample,
        [trained],
        rounds=1,
        networks=["MixNet-S"],
        times=2,
        backends=BACKENDS,
        score_thresholds=[1e-3],
    )
    *sample_rows, own_data, _, _ = record["detectors"]
    assert tuple(row["backend"] for row in sample_rows) == BACKENDS
    sample = sample_rows[0]
    assert (sample["detector"], sample["images"]) == ("MixNet-S", 2 * 47)
    assert (own_data["detector"], own_data["images"]) == (trained[0].stem, IMAGES)
    for row in record["detectors"]:
        assert row["speedup"]["median"] > 0
    assert "MixNet-S" in testing.table(record)


@pytest.mark.heavy
def test_metric_times_every_backend(benchmark_command, tmp_path):
    out = tmp_path / "metric.json"
    code, text, err = benchmark_command("metric", "--rounds", 1, "--images", 20, "--out", out)
    assert code == 0, err
    few, filled = json.loads(out.read_text())["rows"]
    assert few["detections"] < 20 * 100 <= filled["detections"]
    for row in (few, filled):
        assert tuple(row["backends"]) == BACKENDS
        reference, hotcoco, faster = row["backends"].values()
        assert reference["largest_difference"] == hotcoco["largest_difference"] == 0
        assert faster["largest_difference"] < 1e-12
        assert all(values["seconds"]["low"] > 0 for values in row["backends"].values())
    assert "hotcoco" in text


@pytest.mark.heavy
def test_predict_times_two_checkouts_with_equal_predictions(benchmark_command, tmp_path):
    out = tmp_path / "predict.json"
    arguments = ("--checkout", ROOT, "--network", "MixNet-S", "--images", 9, "--rounds", 1)
    code, text, err = benchmark_command("predict", *arguments, "--out", out)
    assert code == 0, err
    rows = json.loads(out.read_text())["rows"]
    assert [row["runtime"] for row in rows] == ["onnx", "openvino"]
    for row in rows:
        assert row["largest_difference"] == 0
        assert row["boxes"] > 1
        assert row["speedup"]["median"] == pytest.approx(row["ratio_of_minima"])
        assert row["mixdet"]["peak_mb"] > 50
    assert "openvino" in text


@pytest.mark.heavy
def test_infer_times_every_installed_form(benchmark_command, tmp_path):
    out = tmp_path / "infer.json"
    arguments = ("--network", "MixNet-S", "--rounds", 1, "--batch", 2, "--threads", 1)
    code, text, err = benchmark_command("infer", *arguments, "--out", out)
    assert code == 0, err
    assert "mAP" not in text
    rows = json.loads(out.read_text())["rows"]
    forms = [row["form"] for row in rows]
    assert len(set(forms)) == len(forms) >= 9
    for row in rows:
        parts = ("network",) if row["form"] == MATRIX_PRODUCT else PARTS
        assert {*row["milliseconds"]} == {*parts}
        assert all(values["low"] > 0 for values in row["milliseconds"].values())
        assert row["form"] in text


@pytest.mark.heavy
def test_infer_times_exported_folders(benchmark_command, tmp_path, exported):
    """Each exported file has a row with the mAP that its folder states, and a point in the plot."""
    folder, out = exported / "raw", tmp_path / "infer.json"
    arguments = ("--network", "MixNet-S", "--rounds", 1, "--batch", 1, "--threads", 1)
    only_folder = ("--without", "timm", "MixDet", "torchvision", "matrix", "--folders", folder)
    code, text, err = benchmark_command("infer", *arguments, *only_folder, "--out", out)
    assert code == 0, err
    rows = json.loads(out.read_text())["rows"]
    assert [row["form"] for row in rows] == ["raw, onnx", "raw, openvino"]
    measured = json.loads((folder / "mixdet.json").read_text())["measured"]
    assert [row["mAP"] for row in rows] == [measured[name]["mAP"] for name in ("onnx", "openvino")]
    for row in rows:
        assert {*row["milliseconds"]} == {*PARTS}
        assert f"{row['mAP']:.4f}" in text
    svg = out.with_suffix(".svg").read_text()
    assert svg.count(rows[0]["form"]) >= 2
    assert "mAP" in svg


def test_infer_refuses_folders_of_another_kind(refused_command, tmp_path, exported):
    assert "is not an exported folder" in refused_command("infer", "--folders", tmp_path)
    assert "--kind raw" in refused_command("infer", "--folders", exported / "end2end")


@pytest.mark.heavy
def test_fuse_compares_forms_of_a_mixconv():
    group = [("ssdlite_mixnet_s_digits", form) for form in ("as trained", "as fused")]
    record = mixconv_fusing.measure(1, [group])
    split, fused = record["rows"]
    for runtime in ("onnx", "openvino"):
        # The fused form computes more, since fusing fills weights with zeros.
        assert split["madds"][runtime] < fused["madds"][runtime] < 1.5 * split["madds"][runtime]
        assert fused["milliseconds"][runtime]["low"] > 0
    ratio = fused["milliseconds"]["onnx"]["low"] / split["milliseconds"]["onnx"]["low"]
    assert f"({ratio:.2f})" in mixconv_fusing.table(record)


@pytest.mark.heavy
def test_feed_measures_the_fraction_of_time_spent_waiting_for_data(coco_sample):
    record = data_loading.measure(coco_sample, 1, [1], images=8, batch=4)
    peer, ours, *cuda_graph = record["rows"]
    assert [row["side"] for row in (peer, ours)] == ["timm in mmdet", "MixDet"]
    assert bool(cuda_graph) == torch.cuda.is_available()
    for row in record["rows"]:
        assert 0 <= row["waiting"] < 1
        assert f"{row['waiting']:.0%}" in data_loading.table(record)


@pytest.mark.heavy
def test_gloo_measures_the_speedup_over_one_process():
    record = training_processes.measure(1, networks=("MixNet-S",), size=160, batch=4)
    titles = [row["side"] for row in record["rows"]]
    assert titles == list(training_processes.PROCESSES_AND_THREADS)
    assert record["rows"][0]["speedup"]["median"] == 1
    assert "two processes, one thread each" in training_processes.table(record)


def test_grow_measures_networks_of_growing_size_and_single_layers():
    settings = {
        64: scaling.Setting(64, 2, (3, 5)),
        96: scaling.Setting(96, 1, (3, 5)),
    }
    record = scaling.measure(1, {"resolution": settings})
    small, large = record["sweeps"]
    assert 0 < small["training"]["low"] <= small["inference"]["high"]
    assert "training" not in large  # batch norm cannot train on one image at the 1x1 level
    *layers, network, product, small_copy, large_copy = record["parts"]
    for key in ("madds", "bytes"):
        assert sum(part[key] for part in layers) == network[key]
    assert small_copy["bytes"] == large_copy["bytes"] == 2 * 64 * 2**20
    assert sum(part["milliseconds"] for part in layers) >= 0.99 * network["milliseconds"]
    assert product["madds"] == 1024**3
    model = our_model("MobileNetV2 {3,5,7}", 320).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 320, 320), mode="tensor")
    split = counter.get_total_flops() / 2
    assert split < network["madds"] < 1.05 * split  # the fused form pads some kernels with zeros
    assert scaling.plot(record).count("<svg") == 1
    assert "resolution 96" in scaling.table(record)
