"""The code of docs/deploy.md, run as it stands there."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest

from mixdet.deploy.verification import match_detections
from mixdet.images import as_rgb
from mixdet.inference import Detector
from mixdet.inference.exported import network_input
from tests.conftest import ROOT

PAGE = (ROOT / "docs/deploy.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.S)


def as_arrays(rows: np.ndarray) -> tuple[np.ndarray, ...]:
    return rows[:, :4], rows[:, 4], rows[:, 5].astype(int)


def equal(found, want) -> None:
    assert len(want) > 10
    alone, boxes, scores = match_detections((want.boxes, want.scores, want.labels), found)
    assert alone == 0
    assert boxes < 1e-2
    assert scores < 1e-4


@pytest.mark.parametrize("shape", [(64, 64), (333, 121)])
def test_the_raw_outputs_decoded_in_30_lines(exported, tmp_path, monkeypatch, shape):
    decode, use = blocks("python")
    assert len(decode.splitlines()) <= 30
    (tmp_path / "exported").symlink_to(exported)
    rng = np.random.default_rng(5)
    cv2.imwrite(str(tmp_path / "image.jpg"), rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(decode, names)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(use, names)
    rows = names["decode"](names["boxes"], names["scores"], names["about"], *shape[::-1])
    want = Detector("exported/raw", runtime="onnx")("image.jpg")
    equal(as_arrays(rows), want)
    assert len(said.getvalue().splitlines()) == len(want)
    assert said.getvalue().split()[0] in ("dark", "bright")


@pytest.mark.heavy  # the compiler takes its time
def test_the_cpp_program(exported, images, tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    folder = exported / "raw"
    manifest = json.loads((folder / "mixdet.json").read_text())
    (code,) = blocks("cpp")
    code = re.sub(r"max_per_img = \d+", "max_per_img = 20", code)
    assert f"score_thr = {manifest['postprocess']['score_thr']}f" in code
    assert f"iou_thr = {manifest['postprocess']['iou_thr']}f" in code
    (tmp_path / "detect.cpp").write_text(code)
    compile_it = next(block for block in blocks("bash") if "g++" in block)
    path = f"{sysconfig.get_path('scripts')}:/usr/bin:/bin"
    environment = {"PATH": path}
    subprocess.run(["bash", "-ec", compile_it], cwd=tmp_path, check=True, env=environment)
    image = images / "val2017" / "2.png"
    pixels = network_input([as_rgb(image)], manifest)
    command = [tmp_path / "detect", folder / "model.xml"]
    done = subprocess.run(command, input=pixels.tobytes(), capture_output=True, check=True)
    rows = np.array([line.split() for line in done.stdout.decode().splitlines()], float)
    equal(as_arrays(rows), Detector(folder, runtime="openvino")(image))
    assert Path(openvino.__file__).with_name("include").is_dir()
