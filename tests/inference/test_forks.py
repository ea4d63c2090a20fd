"""A `Detector` can be pickled. In a forked process it works or is refused, but never hangs.

The tests fork a script instead of pytest, since pytest has threads. The detector of the script
uses two threads.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mixdet.deploy import export
from mixdet.errors import MixDetError
from mixdet.inference import Detector, ExportedNetwork
from tests.conftest import ROOT

SCRIPT = """
import gc, os, sys
import numpy as np
from mixdet.inference import Detector
if sys.argv[2] == "torch":
    import tests.tiny  # the network of the checkpoint

path, runtime, inherited = sys.argv[1:]
options = {} if runtime == "torch" else {"runtime": runtime}
if runtime != "executorch":
    options["threads"] = 2
images = [*np.random.default_rng(0).integers(0, 256, (9, 700, 900, 3), np.uint8)]
detector = Detector(path, **options)
want = detector(images)
if inherited == "freed":  # a runtime may keep the threads of a freed network for the next one
    del detector
    gc.collect()
read, write = os.pipe()
if os.fork() == 0:
    lines = []
    try:
        if inherited == "called":
            lines.append(str(detector(images)))
    except Exception as error:
        lines.append(f"{type(error).__name__}: {error}")
    try:
        detector = Detector(path, **options)  # also frees the inherited detector
    except Exception as error:
        lines.append(f"{type(error).__name__}: {error}")
    try:
        options["threads"] = None
        detector = Detector(path, **options)
        got = detector(images)
        assert len(got) == len(want) == 9
        for a, b in zip(got, want):
            assert np.allclose(a.scores[:5], b.scores[:5], atol=1e-4)
        lines.append("equal")
    except Exception as error:
        lines.append(f"{type(error).__name__}: {error}")
    print(*lines, sep="\\n", flush=True)
    os._exit(0)  # multiprocessing ends its processes this way
assert os.wait()[1] == 0
"""
MADE_BEFORE = r"MixDetError: this detector was made in process \d+, .* make it in the worker"
IMPORTED_BEFORE = r"MixDetError: .* was imported before this process was forked"
SPAWN = r".* start this process with multiprocessing\.get_context\('spawn'\)"
IN_CHILD = {
    "onnx": ["equal"],
    "litert": ["equal"],
    "executorch": ["equal"],
    "torch": [r"MixDetError: threads=2: torch was imported before this .*" + SPAWN, "equal"],
    "ncnn": [r"MixDetError: threads=2: ncnn was imported before this .*" + SPAWN, "equal"],
    "openvino": [IMPORTED_BEFORE + SPAWN + ", or choose another runtime"] * 2,
}
PACKAGES = {"ncnn": "pnnx", "litert": "litert_torch", "executorch": "executorch"}


@pytest.fixture(scope="module")
def path_for(trained, exported, tmp_path_factory):
    """A function that returns the checkpoint for torch, and an exported folder for the others."""
    folders = {"torch": trained[1], "onnx": exported / "raw", "openvino": exported / "raw"}

    def find(runtime: str) -> os.PathLike:
        if runtime not in folders:
            pytest.importorskip(PACKAGES[runtime])
            out = tmp_path_factory.mktemp(runtime)
            (folders[runtime],) = export(*trained, out, targets=(runtime,), check=False)
        return folders[runtime]

    return find


HEAVY = [
    pytest.param(runtime, marks=pytest.mark.heavy) for runtime in IN_CHILD if runtime != "onnx"
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("inherited", ["called", "freed"])
@pytest.mark.parametrize("runtime", ["onnx", *HEAVY])
def test_a_forked_process_makes_its_own_detector_or_is_told_why_not(path_for, runtime, inherited):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", SCRIPT, path_for(runtime), runtime, inherited]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    expected = [MADE_BEFORE] * (inherited == "called") + IN_CHILD[runtime]
    lines = [line for line in done.stdout.splitlines() if re.match(r"equal|\w+Error: ", line)]
    assert len(lines) == len(expected), done.stdout
    for line, pattern in zip(lines, expected, strict=True):
        assert re.match(pattern, line)


@pytest.mark.parametrize("runtime", ["onnx", "openvino", "torch"])
def test_a_pickled_detector_loads_its_files_again(path_for, images, monkeypatch, tmp_path, runtime):
    path = Path(os.path.relpath(path_for(runtime)))
    detector = Detector(path, threads=1, **({} if runtime == "torch" else {"runtime": runtime}))
    content = pickle.dumps(detector)
    assert len(content) < 2000
    monkeypatch.chdir(tmp_path)  # the relative path leads nowhere from here
    copies = [pickle.loads(content), copy.deepcopy(detector)]
    image = images / "val2017" / "1.png"
    want = detector(image)
    assert len(want) > 0
    for other in copies:
        assert np.array_equal(other(image).boxes, want.boxes)
        assert other.classes == detector.classes


def test_a_pickled_network_keeps_its_runtime(exported):
    network = pickle.loads(pickle.dumps(ExportedNetwork(exported / "raw", "openvino", 1)))
    assert network.runtime == "openvino"
    assert network.classes == ("dark", "bright")


def test_a_detector_can_be_sent_to_a_spawned_process(exported, images):
    detector = Detector(exported / "raw", runtime="onnx")
    image = images / "val2017" / "1.png"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        got = processes.submit(detector, str(image)).result(60)
    assert np.array_equal(got.boxes, detector(image).boxes)


def test_an_unpickled_detector_says_what_is_missing(exported, tmp_path):
    folder = shutil.copytree(exported / "raw", tmp_path / "moved")
    content = pickle.dumps(Detector(folder, runtime="onnx"))
    shutil.rmtree(folder)
    with pytest.raises(MixDetError, match=rf"{folder}: no such checkpoint file or exported folder"):
        pickle.loads(content)
