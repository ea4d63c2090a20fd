"""Test prediction with a fake detector, and tools/predict.py with a real detector."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mixdet.errors import MixDetError
from mixdet.images import as_rgb
from mixdet.inference.predict import find_inputs, predict_files, predict_video
from tests.conftest import ROOT
from tests.spots import BrightSpot, InterruptedDetector, read_video, spot, write_video
from tests.untrained import save_untrained

TOOL = [sys.executable, str(ROOT / "tools" / "predict.py")]


class TestFiles:
    def test_images_of_a_folder_and_a_file_are_predicted_and_drawn(self, tmp_path):
        folder, out = tmp_path / "in", tmp_path / "out"
        (folder / "sub").mkdir(parents=True)
        for index, place in enumerate(("a.png", "b.bmp", "sub/a.png")):
            Image.fromarray(spot(10 * index, 40)).save(folder / place)
        (folder / "notes.txt").write_text("not an image")
        Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(tmp_path / "a.png")
        entries = predict_files(BrightSpot(), [folder, tmp_path / "a.png"], out, batch_size=2)
        assert entries == json.loads((out / "predictions.json").read_text())
        assert [Path(entry["file"]).name for entry in entries] == [
            "a.png",
            "b.bmp",
            "a.png",
            "a.png",
        ]
        for index, entry in enumerate(entries[:3]):
            assert entry["boxes"] == [[10 * index, 40, 10 * index + 20, 60]]
            assert entry["names"] == ["spot"]
            assert entry["scores"] == [0.75]
            assert entry["labels"] == [0]
        assert entries[3]["boxes"] == []
        drawn = sorted(str(p.relative_to(out)) for p in out.rglob("*") if ".json" not in p.suffix)
        assert [name for name in drawn if "." in name] == ["a.png", "a_2.png", "b.bmp", "sub/a.png"]
        assert as_rgb(out / "a.png").shape == (360, 480, 3)

    def test_boxes_below_the_threshold_are_left_out(self, tmp_path):
        Image.fromarray(spot(0, 0)).save(tmp_path / "a.png")
        (entry,) = predict_files(BrightSpot(), [tmp_path / "a.png"], tmp_path / "o", score_thr=0.8)
        assert entry["boxes"] == []

    def test_a_second_run_does_not_read_the_images_that_the_first_drew(self, tmp_path):
        Image.fromarray(spot(0, 0)).save(tmp_path / "a.png")
        for _ in range(2):
            assert len(predict_files(BrightSpot(), [tmp_path], tmp_path / "out")) == 1

    def test_inputs_are_never_overwritten(self, tmp_path):
        Image.fromarray(spot(0, 0)).save(tmp_path / "a.png")
        before = (tmp_path / "a.png").read_bytes()
        with pytest.raises(MixDetError, match="overwritten"):
            predict_files(BrightSpot(), [tmp_path / "a.png"], tmp_path)
        assert (tmp_path / "a.png").read_bytes() == before

    def test_inputs_without_an_image_are_refused_by_name(self, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 cut off")
        (tmp_path / "broken.mp4").write_bytes(b"not a film")
        for name in ("empty", "broken.jpg", "broken.mp4", "gone.png"):
            with pytest.raises(MixDetError, match=name.replace(".", r"\.")):
                predict_files(BrightSpot(), [tmp_path / name], tmp_path / "out")

    def test_unreadable_inputs_are_reported_at_the_end(self, tmp_path):
        for name in ("a.png", "c.png", "d.png"):
            Image.fromarray(spot(0, 0)).save(tmp_path / name)
        (tmp_path / "b.png").write_bytes(b"not an image")
        (tmp_path / "e.mp4").write_bytes(b"not a film")
        with pytest.raises(
            MixDetError, match=r"b\.png.*e\.mp4.*the results of 3 images"
        ) as refused:
            predict_files(BrightSpot(), [tmp_path], tmp_path / "out", batch_size=2)
        assert "\n" not in str(refused.value)
        entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
        assert [Path(entry["file"]).name for entry in entries] == ["a.png", "c.png", "d.png"]
        assert (tmp_path / "out" / "d.png").is_file()

    def test_an_input_folder_as_output_folder_is_refused(self, tmp_path, monkeypatch):
        folder = tmp_path / "a" / "b"
        folder.mkdir(parents=True)
        Image.fromarray(spot(0, 0)).save(folder / "x.png")
        monkeypatch.chdir(folder)
        with pytest.raises(MixDetError, match=r"--out .* is an input folder"):
            predict_files(BrightSpot(), ["."], folder)
        # Folders above and inside the input folder are allowed, and so is a second run.
        for out in (tmp_path, folder / "out", folder / "out"):
            assert len(predict_files(BrightSpot(), ["."], out)) == 1

    def test_an_output_folder_that_cannot_be_written_is_refused_before_detecting(self, tmp_path):
        Image.fromarray(spot(0, 0)).save(tmp_path / "a.png")
        (tmp_path / "file").write_text("")
        with pytest.raises(MixDetError, match=r"--out .*file"):
            predict_files(None, [tmp_path / "a.png"], tmp_path / "file")


class TestVideo:
    @pytest.mark.parametrize(
        ("name", "codec", "rate"), [("clip.avi", "MJPG", 12.0), ("clip.mp4", "mp4v", 30.0)]
    )
    def test_a_video_keeps_its_frames_and_rate_and_gets_boxes(self, tmp_path, name, codec, rate):
        frames = [spot(8 * index, 50) for index in range(11)]
        source = write_video(tmp_path / name, frames, rate, codec)
        entries = predict_files(BrightSpot(), [source], tmp_path / "out", batch_size=4)
        assert [entry["frame"] for entry in entries] == list(range(11))
        for index, entry in enumerate(entries):
            assert np.allclose(entry["boxes"], [[8 * index, 50, 8 * index + 20, 70]], atol=2)
        drawn, drawn_rate = read_video(tmp_path / "out" / "clip.mp4")
        assert len(drawn) == 11
        assert drawn_rate == pytest.approx(rate, rel=1e-3)
        assert drawn[0].shape == (360, 480, 3)
        # The box around the spot is red, the class's color. Pixels far from the spot are not red.
        red = drawn[5].astype(int)[..., 0] - drawn[5].astype(int)[..., 2]
        assert (red[3 * 60, 3 * 40 - 6 : 3 * 40 + 6] > 60).any()
        assert not (red[3 * 60, : 3 * 40 - 20] > 60).any()

    def test_frames_above_the_limit_are_left_out(self, tmp_path):
        source = write_video(tmp_path / "clip.avi", [spot(0, 0)] * 6, 10)
        assert len(predict_video(BrightSpot(), source, tmp_path / "o.mp4", frames=4)) == 4

    def test_ctrl_c_leaves_a_readable_video(self, tmp_path):
        source = write_video(tmp_path / "clip.avi", [spot(0, 0)] * 9, 10)
        with pytest.raises(KeyboardInterrupt):
            predict_video(InterruptedDetector(), source, tmp_path / "o.mp4", batch_size=2)
        assert len(read_video(tmp_path / "o.mp4")[0]) == 6

    def test_a_camera_ends_with_ctrl_c(self, tmp_path, monkeypatch):
        source = str(write_video(tmp_path / "clip.avi", [spot(0, 0)] * 9, 10))
        capture = cv2.VideoCapture
        with monkeypatch.context() as patch:
            patch.setattr(cv2, "VideoCapture", lambda place: capture(place or source))
            entries = predict_video(InterruptedDetector(), 0, tmp_path / "o.mp4")
        assert [entry["file"] for entry in entries] == ["camera 0"] * 3
        assert len(read_video(tmp_path / "o.mp4")[0]) == 3

    def test_a_missing_camera_is_named(self, tmp_path):
        with pytest.raises(MixDetError, match="camera 63"):
            predict_video(BrightSpot(), 63, tmp_path / "o.mp4")


class TestTool:
    def test_help_imports_no_torch(self):
        code = (
            "import runpy, sys\n"
            "sys.argv = ['predict.py', '--help']\n"
            f"try: runpy.run_path({TOOL[1]!r}, run_name='__main__')\n"
            "except SystemExit: pass\n"
            "sys.exit(bool({'torch', 'mmdet', 'cv2', 'numpy'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

    def test_ctrl_c_ends_with_one_line_that_names_the_results(
        self, call_main, monkeypatch, tmp_path
    ):
        options = []
        detector = InterruptedDetector()
        monkeypatch.setattr(
            "mixdet.inference.Detector", lambda *_, **given: options.append(given) or detector
        )
        (tmp_path / "in").mkdir()
        for index in range(10):
            Image.fromarray(spot(0, 0)).save(tmp_path / "in" / f"{index}.png")
        code, out, err = call_main(
            lambda: runpy.run_path(TOOL[1], run_name="__main__"),
            *("predict.py", "exported/raw", tmp_path / "in", "--out", tmp_path / "out"),
            *("--batch-size", 2, "--runtime", "openvino"),
        )
        results = tmp_path / "out" / "predictions.json"
        assert code == 130
        assert out == ""
        assert err.splitlines()[-1] == f"interrupted: the results of 6 images are in {results}"
        assert "Traceback" not in err
        assert options[0]["runtime"] == "openvino"

    @pytest.mark.heavy
    def test_the_tool_draws_boxes_of_a_checkpoint(self, tmp_path):
        save_untrained(tmp_path / "model.pth")
        Image.fromarray(spot(40, 40)).save(tmp_path / "a.png")
        write_video(tmp_path / "clip.avi", [spot(40, 40)] * 3, 10)
        inputs = [str(tmp_path / name) for name in ("a.png", "clip.avi")]
        call = [*TOOL, str(tmp_path / "model.pth"), *inputs, "--out", str(tmp_path / "out")]
        done = subprocess.run([*call, "--score-thr", "0"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
        assert [entry.get("frame") for entry in entries] == [None, 0, 1, 2]
        assert all(len(entry["boxes"]) == len(entry["names"]) for entry in entries)
        assert str(sum(len(entry["boxes"]) for entry in entries)) in done.stdout
        again = subprocess.run(
            [*call, "--score-thr", "0", "--threads", "1"], capture_output=True, text=True
        )
        assert again.stdout == done.stdout, again.stderr
        assert (tmp_path / "out" / "a.png").is_file()
        assert len(read_video(tmp_path / "out" / "clip.mp4")[0]) == 3

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["gone.pth", "a.png"], "gone.pth"),
            (["gone.pth"], "--camera"),
            (["gone.pth", "a.png", "--threads", "0"], "--threads has to be at least 1"),
        ],
    )
    def test_refusals_are_one_line(self, tmp_path, arguments, words):
        done = subprocess.run([*TOOL, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode in (1, 2)
        assert words in done.stderr.strip().splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_no_input_is_overwritten_by_the_result_of_another(tmp_path):
    files = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"]
    for file in files:
        file.parent.mkdir()
        file.write_bytes(b"")
    with pytest.raises(MixDetError, match="would be overwritten"):
        find_inputs(files, tmp_path / "b")
    assert len(find_inputs(files, tmp_path / "c").images) == 2
