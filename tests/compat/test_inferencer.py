"""mmdet's interfaces for inference take our configs and checkpoints."""

from __future__ import annotations

from pathlib import Path

import mixdet.compat.prepared

import numpy as np
import pytest
from mmdet.apis import DetInferencer, inference_detector, init_detector

from mixdet.inference import Detector


@pytest.fixture(scope="module")
def image(images) -> Path:
    return sorted((images / "val2017").glob("*.png"))[0]


def best(predictions: dict) -> tuple[np.ndarray, np.ndarray]:
    """The ten best boxes (10, 4) and their scores (10,)."""
    return np.array(predictions["bboxes"])[:10], np.array(predictions["scores"])[:10]


def test_det_inferencer_finds_the_same_boxes_as_our_detector(trained, image, tmp_path):
    config, checkpoint = trained
    inferencer = DetInferencer(str(config), str(checkpoint), device="cpu", show_progress=False)
    (predictions,) = inferencer(
        [str(image)], out_dir=str(tmp_path), no_save_pred=False, pred_score_thr=0.0
    )["predictions"]
    expected = Detector(checkpoint, config)(image)
    boxes, scores = best(predictions)
    np.testing.assert_allclose(boxes, expected.boxes[:10], atol=1e-3)
    np.testing.assert_allclose(scores, expected.scores[:10], atol=1e-5)
    assert (tmp_path / "vis" / image.name).is_file()


def test_det_inferencer_takes_batches_and_arrays(trained, images):
    config, checkpoint = trained
    inferencer = DetInferencer(str(config), str(checkpoint), device="cpu", show_progress=False)
    files = sorted((images / "val2017").glob("*.png"))[:3]
    single = inferencer([str(file) for file in files], batch_size=1)["predictions"]
    batched = inferencer([str(file) for file in files], batch_size=3)["predictions"]
    for expected, result in zip(single, batched, strict=True):
        np.testing.assert_allclose(best(result)[1], best(expected)[1], atol=1e-5)


def test_the_functions_of_mmdets_older_interface_detect_too(trained, image):
    config, checkpoint = trained
    model = init_detector(str(config), str(checkpoint), device="cpu")
    result = inference_detector(model, str(image)).pred_instances
    expected = Detector(checkpoint, config)(image)
    np.testing.assert_allclose(result.bboxes[:10], expected.boxes[:10], atol=1e-3)
