"""Tests of the programs in examples/, and of the example of `fuse` in docs/deploy.md."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig

import cv2
import numpy as np
import pytest
import torch

from mixdet.deploy.verification import match_detections
from mixdet.inference import Detector
from mixdet.models import MixConv2d
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"
# The declarations that detect_ncnn.cpp uses, since ncnn's Python package has no header
NCNN = """
namespace ncnn {
struct Mat {
    enum { PIXEL_RGBA2RGB = 1 };
    static Mat from_pixels_resize(const unsigned char*, int type, int w, int h, int to_w, int to_h);
    template <typename T> operator T*();
    template <typename T> operator const T*() const;
    int w, h;
};
struct Extractor {
    int input(const char* name, const Mat& in);
    int extract(const char* name, Mat& out, int type = 0);
};
struct Option { bool use_fp16_packed, use_fp16_storage, use_fp16_arithmetic; };
struct Net {
    Option opt;
    int load_param(const char* file);
    int load_model(const char* file);
    Extractor create_extractor() const;
};
}
"""


def assert_equal(rows: np.ndarray, detections) -> None:
    """Assert that rows (label, score, x1, y1, x2, y2) equal the detections of `Detector`."""
    assert len(detections) > 10
    wanted = detections.boxes, detections.scores, detections.labels
    unmatched, pixels, score = match_detections(
        wanted, (rows[:, 2:], rows[:, 1], rows[:, 0].astype(int))
    )
    assert unmatched == 0
    assert pixels < 1e-2
    assert score < 1e-4


@pytest.fixture(params=[(64, 64), (333, 121)], ids=str)
def noise_file(request, tmp_path):
    """A file with an image of noise."""
    file = tmp_path / "image.png"
    pixels = np.random.default_rng(5).integers(0, 256, (*request.param, 3), dtype=np.uint8)
    cv2.imwrite(str(file), pixels)
    return file


def test_detect_onnx_finds_the_boxes_of_the_detector(exported, noise_file):
    folder = exported / "raw"
    # with -I, Python ignores PYTHONPATH and does not import from the folder of the script
    command = [sys.executable, "-I", EXAMPLES / "detect_onnx.py", folder, noise_file]
    printed = subprocess.check_output(command, text=True)
    classes = json.loads((folder / "mixdet.json").read_text())["classes"]
    rows = [line.split() for line in printed.splitlines()]
    numbers = [[classes.index(name), *map(float, rest)] for name, *rest in rows]
    assert_equal(np.array(numbers), Detector(folder, runtime="onnx")(noise_file))


@pytest.mark.heavy  # compiling is slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_detect_openvino_finds_the_boxes_of_the_detector(exported, noise_file, tmp_path):
    folder = exported / "raw"
    manifest = json.loads((folder / "mixdet.json").read_text())
    page = (EXAMPLES / "README.md").read_text()
    (build,) = (code for code in re.findall(r"```bash\n(.*?)```", page, re.S) if "g++" in code)
    build = build.replace("-o detect_openvino", f"-o {tmp_path}/detect_openvino")
    path = f"{sysconfig.get_path('scripts')}:/usr/bin:/bin"
    subprocess.run(["bash", "-ec", build], cwd=EXAMPLES, check=True, env={"PATH": path})

    size, rule = manifest["input"], manifest["postprocess"]
    pixels = cv2.imread(str(noise_file))
    height, width = pixels.shape[:2]
    pixels = pixels[..., ::-1] if size["channels"] == "RGB" else pixels
    pixels = cv2.resize(pixels, (size["width"], size["height"]))
    limits = [str(rule[key]) for key in ("score_thr", "iou_thr", "max_per_img")]
    command = [tmp_path / "detect_openvino", folder / "model.xml", *limits]
    printed = subprocess.check_output(command, input=pixels.tobytes()).decode()
    rows = np.array([line.split() for line in printed.splitlines()], float)
    rows[:, 2:] *= [width / size["width"], height / size["height"]] * 2
    assert_equal(rows, Detector(folder, runtime="openvino")(noise_file))


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_detect_ncnn_compiles(tmp_path):
    (tmp_path / "net.h").write_text(NCNN)
    command = ["g++", "-std=c++17", "-fsyntax-only", "-Wall", "-Werror", "-I", tmp_path]
    subprocess.run([*command, EXAMPLES / "detect_ncnn.cpp"], check=True)


def test_the_example_of_fuse_in_the_docs_changes_no_output():
    page = (ROOT / "docs/deploy.md").read_text()
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.S) if "fuse" in code)
    model = torch.nn.Sequential(MixConv2d(24), torch.nn.BatchNorm2d(24)).eval()
    names = {"model": model}
    exec(code, names)
    x = torch.rand(1, 24, 8, 8, generator=torch.Generator().manual_seed(0))
    kinds = {type(module) for module in names["fused"].modules()}
    assert torch.nn.BatchNorm2d not in kinds
    torch.testing.assert_close(names["fused"](x), model(x), rtol=0, atol=1e-5)
