"""mmdet's tools of analysis read the configs and the results of MixDet."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mmdet
import numpy as np
import pytest
from mmengine.fileio import dump

from mixdet import run
from mixdet.analysis.complexity import count_complexity
from mixdet.digit_scenes import make_digit_scenes
from tests.conftest import ROOT, forget_loggers
from tests.tiny import IMAGES, SIZE

TOOLS = Path(mmdet.__file__).parent / ".mim" / "tools" / "analysis_tools"
DIGITS = ROOT / "configs/ssdlite_mixnet_s_digits.py"

pytestmark = pytest.mark.skipif(
    not TOOLS.is_dir(), reason="this mmdet was installed without its tools"
)


@pytest.fixture
def mmdet_tool(monkeypatch, capsys):
    """Run a tool of mmdet's in this process, and return what it prints."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name])  # undone after the test
        forget_loggers()
        run.main([str(TOOLS / f"{name}.py"), *map(str, arguments)])
        return "".join(capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return make_digit_scenes(tmp_path_factory.mktemp("scenes"), train=4, val=4, progress=False)


def test_browse_dataset_draws_the_augmented_training_images(mmdet_tool, scenes, tmp_path):
    options = ["--not-show", "--output-dir", tmp_path / "drawn"]
    root = f"train_dataloader.dataset.data_root={scenes}"
    mmdet_tool("browse_dataset", DIGITS, *options, "--cfg-options", root)
    assert len(list((tmp_path / "drawn").glob("*.*"))) == 4


def test_browse_dataset_draws_the_images_of_the_recipe_for_coco(mmdet_tool, images, tmp_path):
    options = ["--not-show", "--output-dir", tmp_path / "drawn", "--cfg-options"]
    dataset = "train_dataloader.dataset"
    options += [f"{dataset}.data_root={images}", f"{dataset}.metainfo.classes=('dark','bright')"]
    mmdet_tool("browse_dataset", ROOT / "configs/ssdlite_mixnet_s_coco.py", *options)
    assert len(list((tmp_path / "drawn").glob("*.png"))) == IMAGES


def test_get_flops_counts_the_multiply_adds_that_complexity_counts(mmdet_tool, trained):
    printed = mmdet_tool("get_flops", trained[0], "--num-images", 1)
    assert f"Input shape: ({SIZE}, {SIZE})" in printed
    madds = count_complexity(trained[0]).madds
    flops = printed.partition("Flops: ")[2].split()[0]
    assert flops[-1] == "M"
    assert float(flops[:-1]) * 1e6 == pytest.approx(madds, rel=0.05)


def test_the_confusion_matrix_of_perfect_results_is_diagonal(
    mmdet_tool, images, trained, tmp_path, monkeypatch
):
    """The pickle has the form that `tools/test.py --out x.pkl` writes (test_test_options.py)."""
    import torch
    from matplotlib.axes import Axes

    content = json.loads((images / "annotations/instances_val2017.json").read_text())
    results = []
    for image in content["images"]:
        true = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        xywh = torch.tensor([a["bbox"] for a in true]).float()
        boxes = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
        labels = torch.tensor([a["category_id"] - 1 for a in true])
        instances = {"bboxes": boxes, "scores": torch.ones(len(true)), "labels": labels}
        results.append({"img_id": image["id"], "pred_instances": instances})
    dump(results, tmp_path / "results.pkl")
    drawn = []
    monkeypatch.setattr(Axes, "imshow", spy(Axes.imshow, drawn))
    mmdet_tool("confusion_matrix", trained[0], tmp_path / "results.pkl", tmp_path / "matrix")
    assert (tmp_path / "matrix/confusion_matrix.png").stat().st_size > 1000
    (percent,) = drawn
    assert percent.shape == (3, 3)  # two classes and the background
    np.testing.assert_allclose(percent[:2].sum(1), 100)
    assert (np.diag(percent)[:2] > 50).all()


def spy(function, arguments: list):
    """Return the function, which also notes its first argument."""

    def noting(self, value, *args, **kwargs):
        arguments.append(np.asarray(value))
        return function(self, value, *args, **kwargs)

    return noting


@pytest.mark.heavy
def test_coco_error_analysis_draws_a_curve_of_each_class(mmdet_tool, scenes, tmp_path):
    annotations = scenes / "annotations/instances_val.json"
    true = json.loads(annotations.read_text())["annotations"]
    results = [
        {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for a in true
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    mmdet_tool("coco_error_analysis", tmp_path / "results.json", tmp_path, "--ann", annotations)
    names = {path.name for path in (tmp_path / "bbox").glob("*.png")}
    assert len(names) == 4 * 11  # all sizes and three sizes, of ten classes and of all
