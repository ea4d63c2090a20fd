"""Tests of `Detector` on checkpoints. test_exported.py tests it on exported folders."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mixdet.errors import MixDetError
from mixdet.inference import Detections, Detector
from tests.conftest import ROOT
from tests.running_modules import count_batch_norms, record_running_modules
from tests.untrained import save_untrained

CONFIG = ROOT / "configs/ssdlite_mixnet_s_digits.py"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("run") / "epoch_1.pth")


@pytest.fixture(scope="module")
def detector(checkpoint) -> Detector:
    return Detector(checkpoint)


class TestDetector:
    def test_boxes_equal_those_of_mmdets_inference_detector(
        self, checkpoint, detector, photograph, tmp_path
    ):
        from mmdet.apis import inference_detector, init_detector

        Image.fromarray(photograph).save(tmp_path / "cat.png")
        model = init_detector(str(CONFIG), str(checkpoint), device="cpu")
        want = inference_detector(model, str(tmp_path / "cat.png")).pred_instances
        got = detector(tmp_path / "cat.png")
        assert len(got) == len(want) > 0
        assert np.allclose(got.scores, np.sort(want.scores.numpy())[::-1], atol=1e-5)
        assert (got.boxes[:, 2] <= photograph.shape[1] + 1e-3).all()
        assert got.boxes[:, 2].max() > 160  # pixels of the photograph, not of the network's input
        first = int(want.scores.argmax())
        assert np.allclose(got.boxes[0], want.bboxes[first].numpy(), atol=1e-2)
        assert got.labels[0] == int(want.labels[first])
        assert got.names[0] == str(got.labels[0])

    def test_supervision_gets_boxes_scores_and_names(self, detector, photograph, monkeypatch):
        found = detector(photograph)
        theirs = found.to_supervision()
        assert np.array_equal(theirs.xyxy, found.boxes)
        assert np.array_equal(theirs.confidence, found.scores)
        assert [*theirs["class_name"]] == found.names
        chosen = theirs[theirs.class_id == found.labels[0]]  # their selection keeps all fields
        assert {*chosen["class_name"]} == {found.names[0]}
        assert len(Detections(*(part[:0] for part in vars(found).values())).to_supervision()) == 0
        monkeypatch.setitem(sys.modules, "supervision", None)
        with pytest.raises(MixDetError, match=r'pip install "mixdet\[supervision\]"'):
            found.to_supervision()

    def test_a_fused_copy_without_batch_norms_predicts(self, detector, photograph):
        """The test above shows that the boxes of this copy equal mmdet's boxes."""
        detector(photograph)  # the first call makes the fused copy
        with record_running_modules() as modules:
            detector(photograph)
        assert modules
        assert count_batch_norms(modules) == 0

    def test_a_network_that_cannot_be_fused_predicts_without_fusing(self, tmp_path, photograph):
        """With SAME padding, kernels narrower than the stride cannot be merged with wider ones."""
        backbone = dict(kernel_sizes=(1, 3, 5), padding="same")
        file = save_untrained(tmp_path / "a.pth", "ssdlite_mobilenet_v2_digits", **backbone)
        detector = Detector(file)
        with pytest.warns(UserWarning, match="predicts without fusing: .*stride"):
            results = detector(photograph)
        from mixdet.inference.trained import TrainedNetwork

        boxes, *_ = TrainedNetwork(file)([photograph])[0]  # without fusing
        assert len(results) == len(boxes) > 0
        with record_running_modules() as modules:
            detector(photograph)
        assert count_batch_norms(modules) > 0

    def test_the_argument_threads_sets_torchs_threads_and_changes_no_box(
        self, checkpoint, detector, photograph
    ):
        import torch

        before = torch.get_num_threads()
        try:
            threads = before + 1
            with_threads = Detector(checkpoint, threads=threads)(photograph)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        expected = detector(photograph)
        assert np.allclose(with_threads.boxes, expected.boxes, atol=1e-3)
        assert np.allclose(with_threads.scores, expected.scores, atol=1e-5)
        assert with_threads.names == expected.names

    def test_a_path_an_array_and_a_pil_image_give_the_same_boxes(
        self, detector, photograph, tmp_path
    ):
        Image.fromarray(photograph).save(tmp_path / "cat.png")
        results = detector([tmp_path / "cat.png", photograph, Image.fromarray(photograph)])
        assert len(results) == 3
        for other in results[1:]:
            assert np.array_equal(results[0].boxes, other.boxes)
        swapped = detector(photograph[..., ::-1])
        assert not np.array_equal(results[0].scores, swapped.scores)

    def test_the_batch_size_changes_no_score(self, detector, photograph):
        shapes = [
            photograph,
            photograph[:200],
            photograph[:1, :1],
            photograph[:, :7],
            photograph[..., 0],
        ]
        together = detector(shapes, batch_size=3)
        assert detector([]) == []
        for image, batched in zip(shapes, together, strict=True):
            alone = detector(image)
            assert np.allclose(alone.scores[:20], batched.scores[:20], atol=1e-4)

    def test_boxes_are_ordered_by_score_and_cut_at_the_threshold(self, detector, photograph):
        detections = detector(photograph)
        middle = float(np.median(detections.scores))
        kept = detector(photograph, score_thr=middle)
        assert 0 < len(kept) < len(detections)
        assert kept.scores.min() >= middle
        assert (np.diff(detections.scores) <= 0).all()
        assert len(kept.names) == len(kept.boxes) == len(kept.labels) == len(kept)
        assert detections.boxes.dtype == detections.scores.dtype == np.float32

    def test_a_config_file_replaces_the_config_of_the_checkpoint(
        self, checkpoint, detector, photograph
    ):
        named = Detector(checkpoint, CONFIG)
        assert np.array_equal(named(photograph).boxes, detector(photograph).boxes)
        assert named.classes == tuple("0123456789")

    def test_a_config_that_does_not_fit_the_weights_is_refused(self, checkpoint):
        with pytest.raises(MixDetError, match="does not fit its config"):
            Detector(checkpoint, CONFIG.with_name("ssdlite_mobilenet_v2_coco.py"))
        with pytest.raises(MixDetError, match="nowhere"):
            Detector(checkpoint, "nowhere.py")

    def test_bare_weights_need_a_config(self, checkpoint, tmp_path, photograph, detector):
        import torch

        weights = torch.load(checkpoint, weights_only=True)["state_dict"]
        torch.save(weights, tmp_path / "bare.pth")
        with pytest.raises(MixDetError, match="--config"):
            Detector(tmp_path / "bare.pth")
        bare = Detector(tmp_path / "bare.pth", CONFIG)
        assert bare.classes == tuple("0123456789")  # METAINFO of the config's data set
        assert np.array_equal(bare(photograph).boxes, detector(photograph).boxes)

    def test_weights_of_a_parallel_wrapper_load(self, checkpoint, tmp_path, photograph, detector):
        import torch

        content = torch.load(checkpoint, weights_only=True)
        weights = {f"module.{name}": value for name, value in content["state_dict"].items()}
        torch.save({**content, "state_dict": weights}, tmp_path / "parallel.pth")
        detections = Detector(tmp_path / "parallel.pth")(photograph)
        assert np.array_equal(detections.scores, detector(photograph).scores)

    def test_a_config_in_a_checkpoint_runs_no_code_without_trust(self, checkpoint, tmp_path):
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

    def test_a_checkpoint_with_objects_needs_trust(self, checkpoint, tmp_path):
        import torch

        content = torch.load(checkpoint, weights_only=True)
        content["extra"] = Detections  # unpickling a class imports code
        torch.save(content, tmp_path / "unsafe.pth")
        with pytest.raises(MixDetError, match="trust-checkpoint"):
            Detector(tmp_path / "unsafe.pth")
        Detector(tmp_path / "unsafe.pth", trust_checkpoint=True)
        with pytest.raises(MixDetError, match="trust-checkpoint"):  # trust was for that call only
            Detector(tmp_path / "unsafe.pth")

    def test_a_device_that_does_not_exist_is_refused(self, checkpoint):
        with pytest.raises(MixDetError, match="cannot compute on"):
            Detector(checkpoint, device="cuda:99")


def test_importing_inference_imports_neither_torch_nor_mmdet_nor_pillow():
    code = (
        "import sys, mixdet.inference; "
        "print({'torch', 'mmdet', 'mmengine', 'mmcv', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stdout + done.stderr
