"""The programs of docs/large_images.md find the same boxes in each tile as the detector."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from mixdet.inference import Detections, Detector
from tests.conftest import ROOT

TILE = 320
CORNERS = [(0, 0), (TILE, 0), (0, TILE), (TILE, TILE)]  # (x, y) of four tiles without overlap


def run_program(library: str, **changes: str) -> dict[str, object]:
    """Run the page's program for a library with changed arguments, and return its variables."""
    page = (ROOT / "docs/large_images.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (program,) = (text for text in programs if library in text)
    for old, new in changes.items():
        assert program.count(f"{old}=") == 1
        program = re.sub(rf"{old}=([^,()]+|\(.*?\))(?=[,)])", new, program)
    names: dict[str, object] = {}
    exec(program, names)
    return names


@pytest.fixture
def in_one_tile(trained, tmp_path, monkeypatch) -> Detections:
    """The detections in one tile. In the working folder, large.jpg repeats this tile 4 times."""
    config, checkpoint = trained
    shutil.copy(config, tmp_path / "config.py")
    shutil.copy(checkpoint, tmp_path / "epoch_12.pth")
    monkeypatch.chdir(tmp_path)
    tile = np.random.default_rng(0).integers(90, 160, (TILE, TILE, 3), np.uint8)
    tile[40:200, 60:180] = 255
    tile[220:300, 200:310] = 0
    Image.fromarray(np.tile(tile, (2, 2, 1))).save("large.jpg", quality=100, subsampling=0)
    decoded = np.array(Image.open("large.jpg"))[:TILE, :TILE]
    detections = Detector(checkpoint)(decoded, score_thr=0.1)
    assert len(detections) > 2
    return detections


def rows(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return rows (label, score, x1, y1, x2, y2), sorted by these values."""
    table = np.column_stack([labels, np.round(scores, 3), np.round(boxes)])
    return table[np.lexsort(table.T[::-1])]


def expected_rows(detections: Detections) -> np.ndarray:
    count = len(CORNERS)
    boxes = [detections.boxes + np.array([*corner, *corner]) for corner in CORNERS]
    scores, labels = np.tile(detections.scores, count), np.tile(detections.labels, count)
    return rows(np.concatenate(boxes), scores, labels)


def test_supervision_finds_the_detections_of_each_tile(in_one_tile):
    names = run_program("supervision", score_thr="score_thr=0.1", overlap_wh="overlap_wh=(0, 0)")
    result = names["detections"]
    np.testing.assert_allclose(
        rows(result.xyxy, result.confidence, result.class_id),
        expected_rows(in_one_tile),
        atol=1.001,
    )


def test_sahi_finds_the_detections_of_each_tile(in_one_tile):
    names = run_program(
        "sahi",
        confidence_threshold="confidence_threshold=0.1",
        slice_width=(
            "slice_width=320, overlap_height_ratio=0, overlap_width_ratio=0, "
            "perform_standard_pred=False, postprocess_type='NMS', postprocess_match_metric='IOU'"
        ),
    )
    predictions = names["result"].object_prediction_list
    np.testing.assert_allclose(
        rows(
            np.array([prediction.bbox.to_xyxy() for prediction in predictions]),
            np.array([prediction.score.value for prediction in predictions]),
            np.array([prediction.category.id for prediction in predictions]),
        ),
        expected_rows(in_one_tile),
        atol=1.001,
    )
