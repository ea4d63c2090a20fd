"""The tool measures what it says, and refuses what it cannot."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from mixdet.analysis.benchmark.contestants import MATRIX
from mixdet.analysis.benchmark.eval import eval_table, measure_eval
from mixdet.analysis.benchmark.feed import feed_table, measure_feed
from mixdet.analysis.benchmark.fuse import fuse_table, measure_fuse
from mixdet.analysis.benchmark.gloo import SIDES, gloo_table, measure_gloo
from mixdet.analysis.benchmark.grow import grow_plot, grow_table, measure_grow
from mixdet.analysis.benchmark.infer import PARTS
from mixdet.analysis.benchmark.input import RECIPES
from mixdet.analysis.benchmark.peers import our_model
from mixdet.analysis.benchmark.processes import served
from mixdet.analysis.benchmark.report import BEGIN, END
from mixdet.analysis.benchmark.train import fixed_batch, ready_to_train
from mixdet.deploy.export import export
from mixdet.evaluation.coco_scores import BACKENDS
from tests.tiny import PICTURES


def test_input_pipelines(tool, coco_sample, tmp_path):
    out = tmp_path / "deep" / "input.json"
    arguments = ("--data-root", coco_sample, "--rounds", 1, "--pictures", 8, "--out", out)
    code, text, err = tool("benchmark", "input", *arguments)
    assert code == 0, err
    record = json.loads(out.read_text())
    assert record["settings"]["pictures"] == 8
    assert [row["recipe"] for row in record["recipes"]] == list(RECIPES)
    assert [row["workers"] for row in record["workers"]] == [0, 1, 2]
    assert {"torch", "mmdet", "opencv"} <= record["machine"]["versions"].keys()
    for row in record["recipes"]:
        mmdet, ours = row["mmdet"], row["mixdet"]
        (once,) = {row["speedup"][key] for key in ("low", "median", "high")}
        rate = [side["images_per_second"]["median"] for side in (ours, mmdet)]
        assert abs(once - rate[0] / rate[1]) < 1e-6 * once
        assert ("Expand" in mmdet["milliseconds"]) == (row["recipe"] == "all five steps")
        assert 0 < mmdet["decode_share"] < 1
        assert 0 < ours["decode_share"] < 1
    assert "all five steps, one core" in text


@pytest.mark.parametrize("kind", ["input", "feed"])
def test_a_folder_without_coco_is_refused(refusal, tmp_path, kind):
    assert "instances_train2017.json" in refusal("benchmark", kind, "--data-root", tmp_path)


def test_what_is_not_there_is_named(refusal, tmp_path):
    arguments = ("--data-root", tmp_path, "--network", "MixNet-Q")
    said = refusal("benchmark", "feed", *arguments)
    assert "MixNet-Q" in said
    assert "MixNet-S" in said
    assert "MixNet-Q" in refusal("benchmark", "train", "--networks", "MixNet-Q")
    assert "MixNet-Q" in refusal("benchmark", "infer", "--network", "MixNet-Q")
    arguments = ("--data-root", tmp_path, "--networks")
    assert "MixNet-Q" in refusal("benchmark", "eval", *arguments, "MixNet-Q")
    said = refusal("benchmark", "eval", *arguments, "MixNet-S", "--backends", "cocotools")
    assert "'cocotools'" in said


@pytest.mark.heavy
def test_testing(coco_sample, trained):
    record = measure_eval(coco_sample, [trained], 1, 20, ["MixNet-S"], [1e-3], 2, BACKENDS)
    sample, faster, own, _ = record["detectors"]
    assert (sample["backend"], faster["backend"]) == BACKENDS
    assert (sample["detector"], sample["pictures"]) == ("MixNet-S", 2 * 47)
    assert (own["detector"], own["pictures"]) == (trained[0].stem, PICTURES)
    assert record["metric"]["largest_difference"] < 1e-12
    for row in record["detectors"]:
        assert row["speedup"]["median"] > 0
    assert "MixNet-S" in eval_table(record)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export(*trained, folder, targets=("onnx", "openvino"))
    return folder


@pytest.mark.heavy
def test_inference(tool, tmp_path):
    out = tmp_path / "infer.json"
    arguments = ("--network", "MixNet-S", "--rounds", 1, "--batch", 2, "--threads", 1)
    code, text, err = tool("benchmark", "infer", *arguments, "--out", out)
    assert code == 0, err
    assert "mAP" not in text
    rows = json.loads(out.read_text())["rows"]
    forms = [row["form"] for row in rows]
    assert len(set(forms)) == len(forms) >= 9
    for row in rows:
        parts = ("network",) if row["form"] == MATRIX else PARTS
        assert {*row["milliseconds"]} == {*parts}
        assert all(found["low"] > 0 for found in row["milliseconds"].values())
        assert row["form"] in text


@pytest.mark.heavy
def test_exported_folders(tool, tmp_path, exported):
    """Alone: a row for each file, with the mAP that its folder states; both plots have them."""
    out = tmp_path / "infer.json"
    alone = ("--without", "timm", "MixDet", "torchvision", "matrix")
    arguments = ("--network", "MixNet-S", "--rounds", 1, "--batch", 1, "--threads", 1, *alone)
    code, text, err = tool("benchmark", "infer", *arguments, "--folders", exported, "--out", out)
    assert code == 0, err
    rows = json.loads(out.read_text())["rows"]
    assert [row["form"] for row in rows] == [f"{exported.name}, onnx", f"{exported.name}, openvino"]
    measured = json.loads((exported / "mixdet.json").read_text())["measured"]
    assert [row["mAP"] for row in rows] == [measured[name]["mAP"] for name in ("onnx", "openvino")]
    for row in rows:
        assert {*row["milliseconds"]} == {*PARTS}
        assert f"{row['mAP']:.4f}" in text
    drawn = out.with_suffix(".svg").read_text()
    assert drawn.count(rows[0]["form"]) >= 2
    assert "mAP" in drawn


def test_folders_that_cannot_be_timed(refusal, tmp_path, exported):
    assert "no exported folder" in refusal("benchmark", "infer", "--folders", tmp_path)
    manifest = json.loads((exported / "mixdet.json").read_text())
    (tmp_path / "mixdet.json").write_text(json.dumps(manifest | {"kind": "end2end"}))
    assert "--kind raw" in refusal("benchmark", "infer", "--folders", tmp_path)


@pytest.mark.heavy
def test_what_a_mixconv_costs():
    rows = [("ssdlite_mixnet_s_digits", form) for form in ("as trained", "as fused")]
    record = measure_fuse(1, [rows])
    split, fused = record["rows"]
    for runtime in ("onnx", "openvino"):
        # zeros where kernels or 1x1 convolutions are widened
        assert split["madds"][runtime] < fused["madds"][runtime] < 1.5 * split["madds"][runtime]
        assert fused["milliseconds"][runtime]["low"] > 0
    ratio = fused["milliseconds"]["onnx"]["low"] / split["milliseconds"]["onnx"]["low"]
    assert f"({ratio:.2f})" in fuse_table(record)


@pytest.mark.heavy
def test_who_waits_for_pictures(coco_sample):
    record = measure_feed(coco_sample, 1, [1], pictures=8, batch=4)
    peer, ours, *graph = record["rows"]
    assert [row["side"] for row in (peer, ours)] == ["timm in mmdet", "MixDet"]
    assert bool(graph) == torch.cuda.is_available()
    for row in record["rows"]:
        assert 0 <= row["waiting"] < 1
        assert f"{row['waiting']:.0%}" in feed_table(record)


@pytest.mark.heavy
def test_processes_of_one_machine(refusal):
    assert "--batch 5" in refusal("benchmark", "gloo", "--batch", 5)
    record = measure_gloo(rounds=1, networks=("MixNet-S",), size=160, batch=4)
    assert [row["side"] for row in record["rows"]] == list(SIDES)
    assert record["rows"][0]["speedup"]["median"] == 1
    assert "two processes, one thread each" in gloo_table(record)


def learned(rank: int, processes: int, meeting: str):
    """A process that answers with its weights after one step."""
    if processes > 1:
        dist.init_process_group("gloo", meeting, rank=rank, world_size=processes)
    model, step = ready_to_train("MixNet-S", "eager", 160, 2, amp=False, threads=1)
    step(fixed_batch(2, 160, seed=rank))
    found = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
    return lambda request: found


@pytest.mark.heavy
def test_processes_that_are_timed_learn_together(tmp_path):
    with (
        served(learned, 0, 2, f"file://{tmp_path}/meeting") as first,
        served(learned, 1, 2, f"file://{tmp_path}/meeting") as second,
        served(learned, 0, 1, "") as alone,
        served(learned, 0, 1, "") as again,
    ):
        found = [ask(None) for ask in (first, second, alone, again)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])  # own pictures alone teach something else
    assert np.array_equal(found[2], found[3])  # from the same weights


def test_how_cost_grows():
    sweeps = {"resolution": {64: (64, 2, (3, 5)), 96: (96, 1, (3, 5))}}
    record = measure_grow(1, sweeps)
    small, large = record["sweeps"]
    assert 0 < small["training"]["low"] <= small["inference"]["high"]
    assert "training" not in large  # batch norm on a 1x1 level
    *kinds, network, product, near, far = record["parts"]
    for what in ("madds", "bytes"):
        assert sum(part[what] for part in kinds) == network[what]
    assert near["bytes"] == far["bytes"] == 2 * 64 * 2**20
    assert sum(part["milliseconds"] for part in kinds) >= 0.99 * network["milliseconds"]
    assert product["madds"] == 1024**3
    # counted by torch, not by the hooks
    model = our_model("MobileNetV2 {3,5,7}", 320).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 320, 320), mode="tensor")
    split = counter.get_total_flops() / 2
    assert split < network["madds"] < 1.05 * split  # branches pad few channels' kernels
    assert grow_plot(record).count("<svg") == 1
    assert "resolution 96" in grow_table(record)


def test_tables_and_plots_are_made_of_the_json(tool, refusal, tmp_path):
    record = measure_grow(1, {"kernel": {3: (64, 2, 3)}})
    rest = next(part for part in record["parts"] if not part["madds"])
    rest["milliseconds"] = 0.0  # the layers' sum reached the network's median
    file, page = tmp_path / "cost.json", tmp_path / "page.md"
    file.write_text(json.dumps(record))
    page.write_text(f"before\n{BEGIN.format(name='cost')}\nold\n{END.format(name='cost')}\nafter")
    code, out, err = tool("benchmark", "report", file)
    assert code == 0, err
    assert tool("benchmark", "report", file, "--page", page)[0] == 0
    text = page.read_text()
    sweeps, parts = out.strip().split("\n\n")[-2:]
    assert parts in text
    assert sweeps not in text  # the plot shows them
    assert "old" not in text
    assert text.startswith("before\n<!--")
    assert text.endswith("![cost](cost.svg)\n<!-- /cost -->\nafter")
    assert file.with_suffix(".svg").read_text().startswith("<svg")
    (tmp_path / "other.json").write_text("{}")
    assert "other.json" in refusal("benchmark", "report", tmp_path / "other.json")
