"""Tests of the functions behind the demo page. No browser is started."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")

from mixdet.demo import page
from mixdet.errors import MixDetError
from mixdet.inference import Detections


class Corners:
    """A detector that returns the four quarters of an image, with scores 0.9, 0.5, 0.4 and 0.1."""

    def __call__(self, image, *, score_thr=0.0):
        height, width = image.shape[:2]
        boxes = [
            [x, y, x + width / 2, y + height / 2] for y in (0, height / 2) for x in (0, width / 2)
        ]
        scores = np.float32([0.9, 0.5, 0.4, 0.1])
        detections = Detections(np.float32(boxes), scores, np.arange(4), list("abcd"))
        return detections.above(score_thr)


def save(path, width, height) -> dict[str, str]:
    Image.new("RGB", (width, height), (40, 40, 40)).save(path)
    return {"path": str(path)}


def test_boxes_are_in_pixels_of_the_shown_image(tmp_path):
    detected = page.detect_upload([Corners(), Corners()], save(tmp_path / "a.png", 4000, 3000))
    assert detected.image.shape == (960, 1280, 3)
    assert len(detected.results) == 2
    np.testing.assert_allclose(detected.results[1][0].boxes[3], [640, 480, 1280, 960], atol=1)
    assert all(seconds > 0 for _, seconds in detected.results)


def test_small_images_are_not_enlarged(tmp_path):
    detected = page.detect_upload([Corners()], save(tmp_path / "a.png", 1, 1))
    assert detected.image.shape == (1, 1, 3)
    assert page.draw_results(detected, 0.0)[0].shape[2] == 3


@pytest.mark.parametrize(
    ("threshold", "words"), [(0.05, "4 boxes"), (0.5, "2 boxes"), (0.9, "1 box")]
)
def test_only_boxes_above_the_threshold_are_drawn(tmp_path, threshold, words):
    detected = page.detect_upload([Corners()], save(tmp_path / "a.png", 600, 600))
    image, line = page.draw_results(detected, threshold)
    assert line.startswith(f"**{words}** in ")
    # Only the box with the score 0.1 is drawn in the lower right quarter of the image.
    marked = (np.abs(image[400:, 400:].astype(int) - 40) > 60).any()
    assert marked == (threshold < 0.1)


def test_refusals_name_the_upload_without_its_folder(tmp_path, monkeypatch):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 cut off")
    large = save(tmp_path / "large.png", 200, 100)
    monkeypatch.setattr(page, "LIMITS", page.ImageLimits(max_pixels=10_000))
    for file, reason in (({"path": str(broken)}, "damaged"), (large, "max_pixels")):
        with pytest.raises(MixDetError, match=reason) as refused:
            page.detect_upload([Corners()], file)
        assert str(tmp_path) not in str(refused.value)


def test_the_examples_are_image_files(tmp_path):
    files = page.example_images(tmp_path)
    assert len(files) == 6
    for file in files:
        assert Image.open(file).size[0] >= 160


def test_names_of_detectors_are_escaped():
    detectors = {"a/<b>_c_.pth": Corners(), "folder": Corners()}
    components = page.build_page(detectors, []).config["components"]
    texts = [str(component["props"].get("value")) for component in components]
    assert "<b>a</b><br><small>&lt;b&gt;_c_.pth</small>" in texts
    assert "<b>folder</b><br><small>&nbsp;</small>" in texts
