"""Tests of `Detector` and `ExportedNetwork` on exported folders."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.ops import batched_nms

from mixdet.deploy.to_openvino import convert_to_openvino
from mixdet.errors import MixDetError
from mixdet.inference import Detector, ExportedNetwork, read_manifest, runtimes
from mixdet.inference.exported import ExportedFile, suppress
from mixdet.inference.processes import omp_num_threads
from mixdet.inference.runtimes import OPENVINO_BATCH
from tests.conftest import ROOT
from tests.spots import read_video, spot, write_video


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 40), st.integers(1, 4), st.integers(0, 10**6), st.integers(-1, 60))
def test_suppress_equals_torchvision(anchors, classes, seed, nms_pre):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 40, (anchors, 2))
    boxes = np.hstack([corner, corner + rng.uniform(0, 30, (anchors, 2))]).astype(np.float32)
    scores = rng.uniform(0, 1, (anchors, classes)).astype(np.float32)
    scale = np.array([2, 0.5, 2, 0.5], np.float32)
    manifest = {
        "levels": [{"anchors": anchors}],
        "postprocess": {
            "score_thr": 0.3,
            "iou_thr": 0.45,
            "nms_pre": nms_pre,
            "max_per_img": 10,
            "min_bbox_size": 0,
        },
    }
    flat = torch.from_numpy(scores.ravel())
    pairs = torch.arange(len(flat))[flat > 0.3]
    if nms_pre > 0:
        pairs = pairs[flat[pairs].argsort(descending=True)[:nms_pre]]
    rows, labels = pairs // classes, pairs % classes
    candidates = torch.from_numpy(boxes / scale)[rows]
    kept = batched_nms(candidates, flat[pairs], labels, 0.45)[:10]
    got_boxes, got_scores, got_labels = suppress(boxes, scores, scale, manifest)
    assert np.allclose(got_boxes, candidates[kept].numpy())
    assert np.array_equal(got_scores, flat[pairs][kept].numpy())
    assert np.array_equal(got_labels, labels[kept].numpy())


# Refuses to import the packages that inference on exported files must not need
BLOCK = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        blocked = "torch torchvision mmdet mmcv mmengine PIL tqdm pycocotools scipy matplotlib"
        if name.split(".")[0] in blocked.split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""
CODE = """
from mixdet.inference import Detector
detector = Detector(sys.argv[1], runtime=sys.argv[2])
detections = detector(sys.argv[3])
assert len(detections) > 0 and detections.boxes.shape == (len(detections), 4)
assert set(detections.names) <= set(detector.classes)
"""


@pytest.mark.parametrize(("kind", "runtime"), [("raw", "onnx"), ("end2end", "openvino")])
def test_a_fresh_process_needs_neither_torch_nor_mmdet(exported, images, kind, runtime):
    image = images / "val2017" / "1.png"
    command = [sys.executable, "-c", BLOCK + CODE, exported / kind, runtime, image]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run_bare(*arguments):
    """Run the command `mixdet` without the blocked packages."""
    code = f"{BLOCK}\nimport runpy\nrunpy.run_module('mixdet', run_name='__main__')"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_predict_needs_only_numpy_opencv_and_a_runtime(exported, images, tmp_path):
    video = write_video(tmp_path / "v.avi", [spot(0, 0)] * 2, 10)
    image, out = images / "val2017" / "1.png", tmp_path / "out"
    options = ("--runtime", "onnx", "--score-thr", "0", "--out", out)
    done = run_bare("predict", exported / "raw", image, video, *options)
    assert (done.returncode, done.stderr) == (0, "")
    entry, *frames = json.loads((out / "predictions.json").read_text())
    want = Detector(exported / "raw", runtime="onnx")(image)
    assert entry["boxes"] == want.boxes.tolist()
    assert len(frames) == 2
    assert len(read_video(out / "v.mp4")[0]) == 2
    blank = cv2.resize(cv2.imread(str(image)), None, fx=480 / 64, fy=480 / 64)
    assert (np.abs(cv2.imread(str(out / "1.png")).astype(int) - blank) > 100).any()  # drawn boxes


def test_a_checkpoint_without_torch_is_refused_in_one_line(exported, tmp_path):
    (tmp_path / "epoch_12.pth").write_bytes(b"checkpoint")
    for name, words in (
        (tmp_path / "epoch_12.pth", "needs the package "),
        (exported / "raw" / "model.onnx", f"name the folder, {exported / 'raw'}"),
    ):
        done = run_bare("predict", name, "a.png", "--out", tmp_path / "out")
        assert done.returncode == 1
        assert words in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("files", "runtime"),
    [
        (["model.xml", "model.bin"], "openvino"),
        (["model.onnx"], "onnx"),
        (["model.onnx", "model.xml"], "onnx"),
    ],
)
def test_a_copy_with_the_files_of_one_runtime_runs_on_it(exported, tmp_path, files, runtime):
    for name in ["mixdet.json", *files]:
        shutil.copy(exported / "raw" / name, tmp_path / name)
    assert ExportedNetwork(tmp_path).runtime == runtime


def test_a_copy_without_one_file_of_a_runtime_is_refused_with_its_name(exported, tmp_path):
    for name in ("mixdet.json", "model.xml"):
        shutil.copy(exported / "raw" / name, tmp_path / name)
    with pytest.raises(MixDetError, match=r"model\.bin is missing"):
        Detector(tmp_path)
    with pytest.raises(MixDetError, match=r"model\.onnx is missing"):
        Detector(tmp_path, runtime="onnx")


@pytest.mark.parametrize("kind", ["raw", "end2end"])
def test_images_of_every_kind_give_the_same_boxes(exported, images, tmp_path, kind):
    detector = Detector(exported / kind)
    path = images / "val2017" / "2.png"
    array = np.asarray(Image.open(path))
    want = detector(array)
    assert len(want) > 0
    assert want.boxes.dtype == want.scores.dtype == np.float32
    assert want.labels.dtype == np.int64
    alpha = np.dstack([array, np.full(array.shape[:2], 9, np.uint8)])
    for same in (path, str(path), Image.open(path), alpha, [array]):
        got = detector(same)
        got = got[0] if isinstance(got, list) else got
        assert np.array_equal(got.boxes, want.boxes)
        assert got.names == want.names
    gray = detector([array[..., 0], Image.fromarray(array[..., 0])])
    assert np.array_equal(gray[0].boxes, gray[1].boxes)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(array).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.rot90(array, -1)).save(tmp_path / "upright.png")
    turned, upright = detector([tmp_path / "turned.png", tmp_path / "upright.png"])
    assert np.array_equal(turned.boxes, upright.boxes)
    assert (detector(array[:1, :1]).boxes <= 1).all()
    assert detector([]) == []


def test_the_batch_size_changes_no_box(exported, images):
    files = sorted((images / "val2017").iterdir())
    detector = Detector(exported / "end2end")
    for one, many in zip(map(detector, files), detector(files, batch_size=5), strict=True):
        assert len(one) == len(many)
        assert np.allclose(one.boxes, many.boxes, atol=1e-3)


@pytest.mark.parametrize("convert", [convert_to_openvino, openvino.convert_model])
def test_openvino_computes_several_images_together(exported, tmp_path, monkeypatch, convert):
    """The outputs equal those of single images.

    From the file of our converter, OpenVINO also compiles a network for batches. From the file of
    OpenVINO's own converter, it compiles only a network for single images.
    """
    source = tmp_path / "source"
    shutil.copytree(exported / "raw", source)
    openvino.save_model(convert(source / "model.onnx"), source / "model.xml", False)
    compiled = []
    real = openvino.Core.compile_model

    def compile_model(core, model, *settings):
        compiled.append(model.input().shape[0])
        return real(core, model, *settings)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    network = ExportedFile(read_manifest(source), "openvino", source)
    height, width = (network.manifest["input"][side] for side in ("height", "width"))
    inputs = np.random.default_rng(0).integers(0, 256, (19, height, width, 3), np.uint8)
    together = [*network.raw_outputs(inputs)]
    assert compiled == ([1, OPENVINO_BATCH] if convert is convert_to_openvino else [1])
    alone = [pair for image in inputs for pair in network.raw_outputs(image[None])]
    assert len(together) == len(alone)
    for pair, others in zip(together, alone, strict=True):
        for one, other in zip(pair, others, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
    boxes = np.stack([boxes for boxes, _ in together])
    assert (boxes[1:] != boxes[:-1]).any((1, 2)).all()  # the images differ


@pytest.fixture
def thread_counts(monkeypatch):
    """The thread counts that the runtimes report, one for each network that a test loads."""
    counts = []
    InferenceSession, compile_model = onnxruntime.InferenceSession, openvino.Core.compile_model

    def open_session(*args, **options):
        session = InferenceSession(*args, **options)
        counts.append(session.get_session_options().intra_op_num_threads)
        return session

    def compile_and_ask(core, *args):
        compiled = compile_model(core, *args)
        counts.append(compiled.get_property("INFERENCE_NUM_THREADS"))
        return compiled

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    monkeypatch.setattr(openvino.Core, "compile_model", compile_and_ask)
    return counts


@pytest.mark.parametrize("kind", ["raw", "end2end"])
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_threads_reach_the_runtime_and_change_no_box(
    exported, images, thread_counts, kind, runtime
):
    # For eight or more images, OpenVINO compiles two networks.
    files = sorted((images / "val2017").iterdir())[:9]
    default = Detector(exported / kind, runtime=runtime)(files)
    thread_counts.clear()
    detector = Detector(exported / kind, runtime=runtime, threads=1)
    results = detector(files)
    assert thread_counts
    assert set(thread_counts) == {1}
    for one, other in zip(results, default, strict=True):
        assert len(one) == len(other) > 0
        assert np.allclose(one.boxes, other.boxes, atol=1e-3)
        assert np.allclose(one.scores, other.scores, atol=1e-5)
        assert one.names == other.names
    thread_counts.clear()
    ExportedNetwork(exported / kind, runtime, threads=2)
    assert thread_counts == [2]


NCNN_COPIES = """7767517
4 5
Input in0 0 1 in0
Split split 1 2 in0 first second
Permute out0 1 1 first out0 0=0
Permute out1 1 1 second out1 0=0
"""


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("variable", "threads", "expected"), [("1", None, 1), ("2,1", None, 2), ("1", 2, 2)]
)
def test_omp_num_threads_is_the_default_number_of_threads(
    exported, thread_counts, monkeypatch, runtime, variable, threads, expected
):
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    ExportedNetwork(exported / "raw", runtime, threads)
    assert thread_counts == [expected]


@pytest.mark.parametrize("variable", ["", "0", "-1", "many", "²"])
def test_an_omp_num_threads_without_a_number_is_ignored(monkeypatch, variable):
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert omp_num_threads() is None


@pytest.mark.parametrize(("variable", "threads"), [(None, None), (None, 1), ("3", None), ("3", 1)])
def test_threads_reach_ncnn(tmp_path, monkeypatch, variable, threads):
    """ncnn uses the given number of threads. The network has no weights and copies its input."""
    ncnn = pytest.importorskip("ncnn")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    (tmp_path / "model.ncnn.param").write_text(NCNN_COPIES)
    (tmp_path / "model.ncnn.bin").touch()
    nets = [ncnn.Net()]
    default = nets[0].opt.num_threads
    monkeypatch.setattr(ncnn, "Net", lambda net=ncnn.Net: nets.append(net()) or nets[-1])
    loaded = runtimes.load("ncnn", tmp_path / "model.ncnn.param", threads=threads)
    assert nets[-1].opt.num_threads == (threads or int(variable or default))
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3), np.uint8)
    for output in loaded.run(image):
        assert np.array_equal(output.reshape(3, 4, 5), image[0].transpose(2, 0, 1))


def test_executorch_refuses_threads(tmp_path):
    with pytest.raises(MixDetError, match=r"model\.pte: ExecuTorch.* leave threads out"):
        runtimes.load("executorch", tmp_path / "model.pte", threads=2)


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_threads_than_one_are_refused(exported, threads):
    with pytest.raises(MixDetError, match=f"threads={threads}: give 1 or more"):
        Detector(exported / "raw", threads=threads)


def test_calls_from_several_threads_do_not_mix_images(exported):
    detector = Detector(exported / "raw", runtime="openvino")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (90, 120, 3), np.uint8) for _ in range(9)]
    lists = [[image] for image in images] + [images] * 2
    alone = [detector(images) for images in lists]
    with ThreadPoolExecutor(3) as threads:
        for _ in range(8):
            for together, expected in zip(threads.map(detector, lists), alone, strict=True):
                for one, other in zip(together, expected, strict=True):
                    assert np.array_equal(one.boxes, other.boxes)


@pytest.mark.skipif(sys.platform != "linux", reason="tests signal stacks of Linux")
def test_signals_work_after_openvino_networks_are_released(exported):
    """When a `Core` of OpenVINO is released, it restores the previous signal stack.

    That stack may already be freed.
    """
    code = """
import signal, sys
from mixdet.inference import Detector
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
first, second = (Detector(sys.argv[1], runtime="openvino") for _ in range(2))
del first
del second
signal.raise_signal(signal.SIGUSR1)
"""
    command = [sys.executable, "-c", code, exported / "raw"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.parametrize(("runtime", "name"), [("onnx", "model.onnx"), ("openvino", "model.bin")])
def test_a_changed_file_is_refused(exported, tmp_path, runtime, name):
    folder = shutil.copytree(exported / "raw", tmp_path / "copy")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(MixDetError, match=rf"{name}.*SHA-256"):
        Detector(folder, runtime=runtime)
    (folder / name).unlink()
    with pytest.raises(MixDetError, match=rf"{name} is missing"):
        Detector(folder, runtime=runtime)
    other = {"onnx": "openvino", "openvino": "onnx"}[runtime]
    assert ExportedNetwork(folder, other).runtime == other


def test_a_file_that_is_no_network_is_refused(exported, tmp_path):
    folder = shutil.copytree(exported / "raw", tmp_path / "copy")
    manifest = json.loads((folder / "mixdet.json").read_text())
    manifest["input"]["width"] += 1
    (folder / "mixdet.json").write_text(json.dumps(manifest))
    for runtime in ("onnx", "openvino"):
        with pytest.raises(MixDetError, match=r"states an input of \(64, 65, 3\)"):
            Detector(folder, runtime=runtime)
    for runtime, name in (("onnx", "model.onnx"), ("openvino", "model.xml")):
        (folder / name).write_bytes(b"no network")
        manifest["files"][name] = hashlib.sha256(b"no network").hexdigest()
        (folder / "mixdet.json").write_text(json.dumps(manifest))
        with pytest.raises(MixDetError, match=rf"cannot read .*{name} as a network") as refusal:
            Detector(folder, runtime=runtime)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("classes",), "abc"),
        (("levels",), []),
        (("input", "channels"), "GRB"),
        (("input", "width"), 10**9),
        (("levels", 1, "anchors"), -1),
        (("postprocess", "iou_thr"), float("nan")),
        (("postprocess", "max_per_img"), True),
        (("files",), None),
    ],
)
def test_a_wrong_value_in_a_manifest_is_named(exported, tmp_path, place, value):
    manifest = json.loads((exported / "raw" / "mixdet.json").read_text())
    inner = manifest
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tmp_path / "mixdet.json").write_text(json.dumps(manifest))
    words = re.escape("".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in place)[1:])
    with pytest.raises(MixDetError, match=f"mixdet.json: {words} is missing or has"):
        read_manifest(tmp_path)


def test_folders_without_a_valid_manifest_are_refused(exported, tmp_path, monkeypatch):
    with pytest.raises(MixDetError, match="exported folders end2end, raw: name one of them"):
        Detector(exported)
    with pytest.raises(MixDetError, match="it is an empty folder: name a checkpoint"):
        Detector(tmp_path)
    with pytest.raises(MixDetError, match="no such"):
        Detector(tmp_path / "nowhere")
    with pytest.raises(MixDetError, match="takes neither config nor device"):
        Detector(exported / "raw", "config.py")
    with pytest.raises(MixDetError, match="tflite"):
        Detector(exported / "raw", runtime="tflite")
    (tmp_path / "mixdet.json").write_text("{")
    with pytest.raises(MixDetError, match="export again"):
        Detector(tmp_path)
    (tmp_path / "mixdet.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(MixDetError, match="format 1"):
        Detector(tmp_path)
    monkeypatch.setattr("mixdet.inference.manifest.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MixDetError, match=r"mixdet\[onnx\].*mixdet\[openvino\]"):
        Detector(exported / "raw")
