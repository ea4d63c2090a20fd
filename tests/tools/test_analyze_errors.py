"""tools/analyze_errors.py analyzes the detections of tools/test.py, and refuses others."""

from __future__ import annotations

import json
import shutil

import pytest

from mixdet.error_analysis import analyze_config, errors_as_dict
from tests.tiny import CLASSES, write_config

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def tested(trained, images, tmp_path_factory):
    """Test the tiny detector; return the config and the work folder with the detections."""
    from mixdet import launch

    config = write_config(tmp_path_factory.mktemp("tested"), images)
    options = ("default_hooks.report.errors=True",)
    launch.evaluate(str(config), str(trained[1]), cfg_options=options)
    return config, config.parent / "work"


def test_the_tool_and_the_report_of_a_test_agree(tool, tested, tmp_path):
    config, work = tested
    detections = work / "test_detections.json"
    code, out, err = tool("analyze_errors", config, detections, "--out", tmp_path, "--images", 3)
    assert code == 0, err
    assert all(word in out for word in ("score threshold", "AP50", "not detected"))
    assert f"error analysis: {tmp_path / 'errors.html'}" in out
    ours = json.loads((tmp_path / "errors.json").read_text())
    assert ours == json.loads((work / "test_errors.json").read_text())
    errors, image_files = analyze_config(str(config), detections)
    assert errors_as_dict(errors) == ours
    assert image_files[1].endswith("val2017/1.png")
    assert [one["name"] for one in ours["classes"]] == list(CLASSES)
    assert all(isinstance(one["ap"], float) for one in ours["classes"])
    assert (tmp_path / "errors.html").read_text().count("<img") == 3
    report = (work / "test_errors.html").read_text()
    assert 3 < report.count("<img") <= 12
    log = next(work.glob("*/*.log")).read_text()
    assert f"error analysis: {work / 'test_errors.html'}" in log


def test_the_default_folder_is_that_of_the_detections(tool, tested, tmp_path, images):
    config, work = tested
    copy = shutil.copy(work / "test_detections.json", tmp_path / "mine.json")
    (tmp_path / "elsewhere").mkdir()
    annotations = tmp_path / "elsewhere" / "annotations"
    shutil.copytree(images / "annotations", annotations)
    # --images 0 needs no image files
    options = ("--images", 0, "--split", "val", "--data-root", annotations.parent)
    code, out, err = tool("analyze_errors", config, copy, *options, "--score-thr", 0.5)
    assert code == 0, err
    assert "score threshold 0.5 (as given)" in out
    assert "<img" not in (tmp_path / "errors.html").read_text()


def test_the_name_of_the_file_decides_which_images_are_scored(tool, tested, images, tmp_path):
    config, work = tested
    truth = json.loads((images / "annotations/instances_val2017.json").read_text())
    truth["annotations"] = truth["annotations"][:3]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(truth))
    options = [f"test_{part}.ann_file={other}" for part in ("dataloader.dataset", "evaluator")]
    val = shutil.copy(work / "test_detections.json", tmp_path / "val_detections.json")
    for name, scored in ((val, "instances_val2017.json"), (work / "test_detections.json", other)):
        arguments = ("--images", 0, "--out", tmp_path, "--cfg-options", *options)
        code, out, err = tool("analyze_errors", config, name, *arguments)
        assert code == 0, err
        split = name.name.partition("_")[0]
        assert out.splitlines()[0].endswith(f"{scored} (--split {split})")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("not JSON", "not JSON"),
        ('{"annotations": []}', "not a list of detections"),
        ("[1, 2]", "not a list of detections"),
        (
            '[{"image_id": 999, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]',
            "the image_id 999, which is not in the annotation file",
        ),
        (
            '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": NaN}]',
            "not finite",
        ),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]', "COCO's results format"),
    ],
)
def test_files_that_are_no_detections_are_refused(refusal, images, tmp_path, content, words):
    config = write_config(tmp_path, images)
    file = tmp_path / "results" / "detections.json"
    if content is not None:
        file.parent.mkdir()
        file.write_text(content)
    assert words in refusal("analyze_errors", config, file, "--split", "val")
    assert file.parent.exists() == (content is not None)


def test_data_without_objects_and_wrong_options_are_refused(refusal, images_copy, tmp_path):
    file = images_copy / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    detections = tmp_path / "detections.json"
    detections.write_text("[]")
    config = write_config(tmp_path, images_copy)
    assert "no object" in refusal("analyze_errors", config, detections, "--split", "val")
    assert "give --split val or --split test" in refusal("analyze_errors", config, detections)
    assert "--images" in refusal("analyze_errors", config, detections, "--images", -1)
    missing = ("--data-root", tmp_path / "missing")
    line = refusal("analyze_errors", config, detections, "--split", "val", *missing)
    assert "missing" in line
