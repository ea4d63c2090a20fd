"""An edited value in `mixdet.json` takes effect, or a message says what to write instead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from mixdet.errors import MixDetError
from mixdet.inference import Detector
from mixdet.inference.manifest import sha256


@pytest.fixture
def edit_manifest(exported, tmp_path):
    """Copy an exported folder, set values of its manifest, and return the copy."""

    def edit(kind: str, /, **values: object) -> Path:
        folder = shutil.copytree(exported / kind, tmp_path / kind, dirs_exist_ok=True)
        manifest = json.loads((exported / kind / "mixdet.json").read_text())
        for key, value in values.items():
            part = manifest["postprocess"] if key in manifest["postprocess"] else manifest
            part[key] = value
        (folder / "mixdet.json").write_text(json.dumps(manifest))
        return folder

    return edit


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("kind", ["raw", "end2end"])
def test_stricter_thresholds_in_a_manifest_take_effect(
    exported, images, edit_manifest, kind, runtime
):
    files = sorted((images / "val2017").iterdir())[:3]
    before = Detector(exported / kind, runtime=runtime)(files)
    score_thr = float(np.median(before[0].scores))
    strict = Detector(edit_manifest(kind, score_thr=score_thr, max_per_img=2), runtime=runtime)
    for one, all_boxes in zip(strict(files), before, strict=True):
        expected = [score for score in all_boxes.scores if score > score_thr][:2]
        assert one.scores.tolist() == expected
        assert np.array_equal(one.boxes, all_boxes.boxes[: len(expected)])
    assert len(strict(files[0])) == 2 < len(before[0])


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("score_thr", 0.001, "has 0.02: write 0.02 or more, or change the config and export again"),
        ("max_per_img", 21, "has 20: write 20 or less, or change the config"),
        ("max_per_img", -1, "has 20: write 20 or less"),
        ("iou_thr", 0.6, "has 0.45: write 0.45, or change the config"),
        ("nms_pre", 7, "has 100: write 100,"),
        ("min_bbox_size", 3, "has 0: write 0,"),
        ("kind", "raw", "has end2end: write end2end"),
        ("classes", ["dark"], "has 2: write dark, bright, or other names in this order"),
        ("classes", ["dark", "bright", "red"], "has 2: write dark, bright"),
    ],
)
def test_what_an_end2end_file_cannot_do_is_refused(edit_manifest, runtime, key, value, remedy):
    folder = edit_manifest("end2end", **{key: value})
    with pytest.raises(MixDetError, match=rf"mixdet\.json: .*{key}.* but model\.\w+ {remedy}"):
        Detector(folder, runtime=runtime)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_classes_may_be_renamed_but_not_left_out(exported, images, edit_manifest, runtime):
    image = images / "val2017" / "1.png"
    before = Detector(exported / "raw", runtime=runtime)(image)
    renamed = Detector(edit_manifest("raw", classes=["night", "day"]), runtime=runtime)(image)
    names = {"dark": "night", "bright": "day"}
    assert renamed.names == [names[name] for name in before.names]
    with pytest.raises(MixDetError, match=r"number of classes is 1, but .* drop its boxes"):
        Detector(edit_manifest("raw", classes=["bright"]), runtime=runtime)


def test_without_metadata_a_missing_class_is_refused_at_the_first_image(exported, tmp_path):
    """Files for ncnn, LiteRT and ExecuTorch have no metadata, like the ONNX file of this test."""
    folder = shutil.copytree(exported / "raw", tmp_path / "copy")
    model = onnx.load(folder / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, folder / "model.onnx")
    manifest = json.loads((folder / "mixdet.json").read_text())
    manifest["files"]["model.onnx"] = sha256(folder / "model.onnx")
    image = np.zeros((9, 9, 3), np.uint8)
    (folder / "mixdet.json").write_text(json.dumps(manifest))
    Detector(folder, runtime="onnx")(image)
    (folder / "mixdet.json").write_text(json.dumps(manifest | {"classes": ["bright"]}))
    with pytest.raises(MixDetError, match="1 names in classes, but the network computes scores"):
        Detector(folder, runtime="onnx")(image)
