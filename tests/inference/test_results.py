"""If an error ends a run, the finished results are kept, and the message names their file."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mixdet.errors import MixDetError
from mixdet.inference.predict import predict_files
from mixdet.inference.results import ResultFiles
from tests.spots import BrightSpot, InterruptedDetector, spot, write_video


@pytest.fixture
def folder(tmp_path):
    """A folder with ten images."""
    (tmp_path / "in").mkdir()
    for index in range(10):
        Image.fromarray(spot(10 * index, 0)).save(tmp_path / "in" / f"{index}.png")
    return tmp_path / "in"


def kept(out: Path) -> list[str]:
    """Return the names of the images in a run's two JSON files, which must have equal entries."""
    entries = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert json.loads((out / "predictions.json").read_text()) == entries
    return [Path(entry["file"]).name for entry in entries]


class Failing(InterruptedDetector):
    """A detector that raises an error at the fourth batch."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, images, **options):
        try:
            return super().__call__(images, **options)
        except KeyboardInterrupt:
            raise self.error from None


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (MemoryError(), MixDetError, "smaller --batch-size"),
        (RuntimeError("CUDA out of memory.\nTried"), MixDetError, "smaller --batch-size"),
        (OSError(28, "No space left on device"), MixDetError, "No space left on device"),
        (MixDetError("the camera burns"), MixDetError, "the camera burns"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_in_the_middle_keeps_the_finished_results(folder, tmp_path, error, raised, words):
    with pytest.raises(raised) as caught:
        predict_files(Failing(error), [folder], tmp_path / "out", batch_size=2)
    message = str(caught.value)
    assert words in message
    assert f"the results of 6 images are in {tmp_path / 'out' / 'predictions.json'}" in message
    assert "\n" not in message
    assert kept(tmp_path / "out") == [f"{index}.png" for index in range(6)]
    assert len(list((tmp_path / "out").glob("*.png"))) == 6


def test_a_bug_keeps_its_traceback_and_the_finished_results(folder, tmp_path):
    with pytest.raises(ZeroDivisionError) as caught:
        predict_files(Failing(ZeroDivisionError()), [folder], tmp_path / "out", batch_size=2)
    assert "results of 6 images" in caught.value.__notes__[0]
    assert len(kept(tmp_path / "out")) == 6


def test_an_error_at_the_first_image_says_that_no_image_is_done(folder, tmp_path):
    detector = Failing(MemoryError())
    detector.batches = 3
    with pytest.raises(MixDetError, match="no image is done"):
        predict_files(detector, [folder], tmp_path / "out")


def test_each_result_is_written_to_the_file_at_once(tmp_path):
    results = ResultFiles(tmp_path)
    for count in (1, 2):
        results.add({"file": "a.png", "boxes": []})
        assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == count
    assert not (tmp_path / "predictions.json").exists()
    results.finish()
    assert kept(tmp_path) == ["a.png"] * 2


def test_ctrl_c_in_a_video_keeps_its_frames(folder, tmp_path):
    video = write_video(tmp_path / "v.avi", [spot(0, 0)] * 9, 10)
    with pytest.raises(KeyboardInterrupt, match="results of 6 images"):
        predict_files(InterruptedDetector(), [video], tmp_path / "out", batch_size=2)
    assert kept(tmp_path / "out") == ["v.avi"] * 6


def test_a_disk_that_gets_full_leaves_only_complete_lines(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    results = ResultFiles(tmp_path)
    entry = {"file": "a.png", "boxes": [[0.0, 1.0, 2.0, 3.0]] * 20}
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        results.add(entry)
        with pytest.raises(MixDetError, match=r"predictions\.jsonl cannot be written"):
            results.add(entry | {"boxes": entry["boxes"] * 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert json.loads((tmp_path / "predictions.jsonl").read_text()) == entry
    assert results.entries == [entry]


needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")


@needs_dev_full
def test_a_full_disk_ends_the_run_with_one_line(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "4.png").symlink_to("/dev/full")
    with pytest.raises(MixDetError) as caught:
        predict_files(BrightSpot(), [folder], tmp_path / "out", batch_size=2)
    message = str(caught.value)
    assert "4.png cannot be written (No space left on device): free some space" in message
    # The disk is full at the fifth drawing. Meanwhile the network computes the next batch
    assert "results of 7 images are in" in message
    assert "\n" not in message
    assert kept(tmp_path / "out") == [f"{index}.png" for index in range(7)]


@needs_dev_full
def test_with_a_disk_that_is_full_from_the_start_no_image_is_done(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.jsonl").symlink_to("/dev/full")
    with pytest.raises(MixDetError, match=r"predictions\.jsonl .*No space.*\(no image is done\)$"):
        predict_files(BrightSpot(), [folder], tmp_path / "out")


def test_if_the_json_list_cannot_be_written_the_json_lines_stay(folder, tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MixDetError, match=r"results of 10 images are in .*predictions\.jsonl\)$"):
        predict_files(BrightSpot(), [folder], tmp_path / "out")
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 10


@pytest.mark.parametrize("name", ["predictions.json", "predictions.jsonl"])
def test_a_folder_in_place_of_a_result_is_refused_before_detecting(folder, tmp_path, name):
    (tmp_path / "out" / name).mkdir(parents=True)
    with pytest.raises(MixDetError, match=f"{name}.*choose another --out"):
        predict_files(None, [folder], tmp_path / "out")


def test_drawings_that_cannot_be_written_do_not_end_the_run(folder, tmp_path):
    (tmp_path / "out" / "3.png").mkdir(parents=True)
    (tmp_path / "out" / "v.mp4").mkdir()
    (folder / "sub").mkdir()
    Image.fromarray(spot(0, 0)).save(folder / "sub" / "a.png")
    (tmp_path / "out" / "sub").write_text("a file")
    write_video(folder / "v.avi", [spot(0, 0)] * 3, 10)
    with pytest.raises(MixDetError) as caught:
        predict_files(BrightSpot(), [folder], tmp_path / "out", batch_size=4)
    message = str(caught.value)
    for name in ("3.png cannot be", "sub/a.png cannot be", "v.mp4 cannot be"):
        assert name in message
    assert "encoder" not in message
    assert "results of 14 images are in" in message
    assert len(kept(tmp_path / "out")) == 14
    assert (tmp_path / "out" / "9.png").is_file()


@pytest.mark.parametrize(("suffix", "width"), [(".webp", 17000), (".jpg", 66000), (".jpeg", 66000)])
def test_images_that_are_too_large_for_a_format_become_png(tmp_path, suffix, width):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (width, 4)).save(tmp_path / "in" / f"b{suffix}", "PNG")
    Image.fromarray(spot(0, 0)).save(tmp_path / "in" / "b.png")
    entries = predict_files(BrightSpot(), [tmp_path / "in"], tmp_path / "out")
    assert len(entries) == 2
    drawn = {file.name: Image.open(file).size for file in (tmp_path / "out").glob("b*")}
    assert drawn == {"b.png": (480, 360), "b_2.png": (width, 4)}


def test_drawings_have_the_colors_of_the_image(tmp_path):
    """Red stays red in every format, although OpenCV writes BGR."""
    image = np.zeros((500, 500, 3), np.uint8)
    image[..., 0] = 200
    (tmp_path / "in").mkdir()
    for suffix in ("bmp", "jpg", "png", "webp", "tif"):
        Image.fromarray(image).save(tmp_path / "in" / f"{suffix}.{suffix}")
    predict_files(BrightSpot(), [tmp_path / "in"], tmp_path / "out")
    drawn = list((tmp_path / "out").glob("*.[!j]*")) + [tmp_path / "out" / "jpg.jpg"]
    assert len(drawn) == 5
    for file in drawn:
        assert np.allclose(np.asarray(Image.open(file).convert("RGB")), image, atol=6), file
    assert cv2.imread(str(tmp_path / "out" / "tif.png"))[0, 0].tolist() == [0, 0, 200]
