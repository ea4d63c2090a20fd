"""`Detector` on checkpoints; tests/inference/test_exported.py has it on exported folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixdet.errors import MixDetError
from mixdet.inference import Detections, Detector

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def save_checkpoint(folder: Path, config: str, **backbone) -> Path:
    """A detector of digits with random weights, saved as a training run saves it."""
    import mixdet.plugin

    import torch
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    cfg = Config.fromfile(CONFIGS / f"{config}.py")
    cfg.model.backbone.update(backbone)
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    path = folder / "epoch_1.pth"
    meta = {"cfg": cfg.pretty_text, "dataset_meta": {"classes": tuple("0123456789")}}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, path)
    return path


def norms(model) -> int:
    return sum(type(module).__name__ == "BatchNorm2d" for module in model.modules())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("run"), "ssdlite_mixnet_s_digits")


@pytest.fixture(scope="module")
def detector(checkpoint) -> Detector:
    return Detector(checkpoint)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """A photograph of uneven shape, (300, 451, 3) RGB."""
    from skimage import data

    return data.chelsea()


class TestDetector:
    def test_equals_mmdets_own_inference(self, checkpoint, detector, image, tmp_path):
        from mmdet.apis import inference_detector, init_detector

        Image.fromarray(image).save(tmp_path / "cat.png")
        model = init_detector(
            str(CONFIGS / "ssdlite_mixnet_s_digits.py"), str(checkpoint), device="cpu"
        )
        want = inference_detector(model, str(tmp_path / "cat.png")).pred_instances
        got = detector(tmp_path / "cat.png")
        assert len(got) == len(want) > 0
        assert np.allclose(got.scores, np.sort(want.scores.numpy())[::-1], atol=1e-5)
        assert (got.boxes[:, 2] <= image.shape[1] + 1e-3).all()
        assert got.boxes[:, 2].max() > 160  # pixels of the image, not of the network's input
        first = int(want.scores.argmax())
        assert np.allclose(got.boxes[0], want.bboxes[first].numpy(), atol=1e-2)
        assert got.labels[0] == int(want.labels[first])
        assert got.names[0] == str(got.labels[0])

    def test_a_fused_copy_predicts(self, detector, image):
        """What it gives is compared with mmdet's above."""
        detector(image)
        network = detector._network
        assert norms(network.predictor) == 0 < norms(network.model)

    def test_what_cannot_be_fused_predicts_as_it_is(self, tmp_path, image):
        """Kernels narrower than the stride under SAME padding have no common center."""
        path = save_checkpoint(
            tmp_path, "ssdlite_mobilenet_v2_digits", kernel_sizes=(1, 3, 5), padding="same"
        )
        detector = Detector(path)
        with pytest.warns(UserWarning, match="predicts without fusing: .*stride"):
            results = detector(image)
        from mixdet.inference.trained import TrainedNetwork

        boxes, *_ = TrainedNetwork(path)([image])[0]  # without fusing
        assert len(results) == len(boxes) > 0
        assert norms(detector._network.predictor) == norms(detector._network.model) > 0

    def test_threads_are_torchs_and_change_no_box(self, checkpoint, detector, image):
        import torch

        before = torch.get_num_threads()
        try:
            threads = before + 1
            one = Detector(checkpoint, threads=threads)(image)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        other = detector(image)
        assert np.allclose(one.boxes, other.boxes, atol=1e-3)
        assert np.allclose(one.scores, other.scores, atol=1e-5)
        assert one.names == other.names

    def test_a_path_an_array_and_pil_agree(self, detector, image, tmp_path):
        Image.fromarray(image).save(tmp_path / "cat.png")
        found = detector([tmp_path / "cat.png", image, Image.fromarray(image)])
        assert len(found) == 3
        for other in found[1:]:
            assert np.array_equal(found[0].boxes, other.boxes)
        swapped = detector(image[..., ::-1])
        assert not np.array_equal(found[0].scores, swapped.scores)

    def test_the_batch_changes_nothing(self, detector, image):
        shapes = [image, image[:200], image[:1, :1], image[:, :7], image[..., 0]]
        together = detector(shapes, batch_size=3)
        assert detector([]) == []
        for image, batched in zip(shapes, together, strict=True):
            alone = detector(image)
            assert np.allclose(alone.scores[:20], batched.scores[:20], atol=1e-4)

    def test_threshold_and_order(self, detector, image):
        found = detector(image)
        middle = float(np.median(found.scores))
        kept = detector(image, score_thr=middle)
        assert 0 < len(kept) < len(found)
        assert kept.scores.min() >= middle
        assert (np.diff(found.scores) <= 0).all()
        assert len(kept.names) == len(kept.boxes) == len(kept.labels) == len(kept)
        assert found.boxes.dtype == found.scores.dtype == np.float32

    def test_a_config_file_in_place_of_the_checkpoints(self, checkpoint, detector, image):
        named = Detector(checkpoint, CONFIGS / "ssdlite_mixnet_s_digits.py")
        assert np.array_equal(named(image).boxes, detector(image).boxes)
        assert named.classes == tuple("0123456789")

    def test_a_config_that_does_not_fit(self, checkpoint):
        with pytest.raises(MixDetError, match="does not fit its config"):
            Detector(checkpoint, CONFIGS / "ssdlite_mobilenet_v2_coco.py")
        with pytest.raises(MixDetError, match="nowhere"):
            Detector(checkpoint, "nowhere.py")

    def test_bare_weights_need_a_config(self, checkpoint, tmp_path, image, detector):
        import torch

        weights = torch.load(checkpoint, weights_only=True)["state_dict"]
        torch.save(weights, tmp_path / "bare.pth")
        with pytest.raises(MixDetError, match="--config"):
            Detector(tmp_path / "bare.pth")
        bare = Detector(tmp_path / "bare.pth", CONFIGS / "ssdlite_mixnet_s_digits.py")
        assert bare.classes == tuple("0123456789")  # from the data set's class
        assert np.array_equal(bare(image).boxes, detector(image).boxes)

    def test_weights_of_a_parallel_wrapper(self, checkpoint, tmp_path, image, detector):
        import torch

        content = torch.load(checkpoint, weights_only=True)
        weights = {f"module.{name}": value for name, value in content["state_dict"].items()}
        torch.save({**content, "state_dict": weights}, tmp_path / "parallel.pth")
        found = Detector(tmp_path / "parallel.pth")(image)
        assert np.array_equal(found.scores, detector(image).scores)

    def test_a_config_that_would_run_code(self, checkpoint, tmp_path):
        import torch

        content = torch.load(checkpoint, weights_only=True)
        marker = tmp_path / "ran"
        content["meta"]["cfg"] += f"\nopen({str(marker)!r}, 'w').close()\n"
        torch.save(content, tmp_path / "evil.pth")
        with pytest.raises(MixDetError, match="trust"):
            Detector(tmp_path / "evil.pth")
        assert not marker.exists()
        Detector(tmp_path / "evil.pth", trust_checkpoint=True)
        assert marker.exists()

    def test_an_unsafe_checkpoint(self, checkpoint, tmp_path):
        import torch

        content = torch.load(checkpoint, weights_only=True)
        content["extra"] = Detections  # a class: unpickling it means importing code
        torch.save(content, tmp_path / "unsafe.pth")
        with pytest.raises(MixDetError, match="trust-checkpoint"):
            Detector(tmp_path / "unsafe.pth")
        Detector(tmp_path / "unsafe.pth", trust_checkpoint=True)
        with pytest.raises(MixDetError, match="trust-checkpoint"):  # trust ends with the call
            Detector(tmp_path / "unsafe.pth")

    def test_a_device_that_is_not_there(self, checkpoint):
        with pytest.raises(MixDetError, match="cannot compute on"):
            Detector(checkpoint, device="cuda:99")


def test_import_loads_neither_torch_nor_mmdet_nor_pillow():
    code = (
        "import sys, mixdet.inference; "
        "print({'torch', 'mmdet', 'mmengine', 'mmcv', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stdout + done.stderr
