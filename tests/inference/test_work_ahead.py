"""Images are read and drawn in threads, with the results of reading and drawing one by one."""

from __future__ import annotations

import json
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixdet.errors import MixDetError
from mixdet.images import as_rgb
from mixdet.inference import Detector
from mixdet.inference.predict import predict_files
from mixdet.inference.work_ahead import map_ahead, thread_pool
from tests.spots import BrightSpot, spot


def test_results_keep_the_order_of_the_items():
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number % 4 == 0 else 0)
        return 10 * number

    with thread_pool() as pool, map_ahead(pool, slow_first, range(20), 6) as results:
        assert list(results) == [10 * number for number in range(20)]


def test_only_a_bounded_number_of_items_is_taken_ahead():
    taken = []
    items = (taken.append(number) or number for number in range(50))
    with thread_pool() as pool, map_ahead(pool, abs, items, 3) as results:
        for number, result in enumerate(results):
            assert result == number
            assert len(taken) <= number + 4
            time.sleep(0.001)  # a fast pool does not take more


@pytest.mark.parametrize(("cancel", "ran"), [(True, False), (False, True)])
def test_an_error_is_raised_in_its_turn_and_the_rest_is_canceled_or_done(cancel, ran):
    done, release = set(), threading.Event()

    def work(number: int) -> int:
        if number == 2:
            raise ValueError(number)
        if number > 2:
            release.wait(10)  # the pool is busy when the error is raised
        done.add(number)
        return number

    results = []
    with thread_pool() as pool:
        with (
            pytest.raises(ValueError, match="2"),
            map_ahead(pool, work, range(30), 20, cancel) as ahead,
        ):
            results.extend(ahead)
        release.set()
    assert len(done) < 30
    assert (22 in done) == ran
    assert {0, 1} <= done


class SlowSpot(BrightSpot):
    """A detector that takes some milliseconds, so that reading and drawing run ahead."""

    def __call__(self, images, **options):
        time.sleep(0.005)
        return super().__call__(images, **options)


def test_a_folder_gives_the_same_files_as_its_images_one_by_one(tmp_path):
    """The images have different sizes, so that they take different times. Two are broken."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(23):
        shape = (900, 1200) if number % 5 == 0 else (60, 80)
        Image.fromarray(spot(2 * number, 10, shape)).save(folder / f"{number:02}.jpg")
    (folder / "07.jpg").write_bytes(b"not an image")
    (folder / "16.jpg").write_bytes((folder / "15.jpg").read_bytes()[:300])
    with pytest.raises(
        MixDetError, match=r"07\.jpg .*; .*16\.jpg .*the results of 21 images"
    ) as refused:
        predict_files(SlowSpot(), [folder], tmp_path / "out", batch_size=4)
    assert "more faults" not in str(refused.value)
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    names = [f"{number:02}.jpg" for number in range(23) if number not in (7, 16)]
    assert [Path(entry["file"]).name for entry in entries] == names
    for name, entry in zip(names, entries, strict=True):
        (alone,) = predict_files(BrightSpot(), [folder / name], tmp_path / "alone", batch_size=1)
        assert alone == entry
        drawn = (tmp_path / "out" / name).read_bytes()
        assert drawn == (tmp_path / "alone" / name).read_bytes()
    assert not (tmp_path / "out" / "07.jpg").exists()


def test_drawings_that_cannot_be_written_are_named_in_order(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in "abcdef":
        Image.fromarray(spot(0, 0)).save(folder / f"{name}.png")
    for name in "be":
        (out / f"{name}.png").mkdir(parents=True)
    with pytest.raises(MixDetError, match=r"b\.png cannot be written.*e\.png cannot be written"):
        predict_files(BrightSpot(), [folder], out, batch_size=2)
    assert len(json.loads((out / "predictions.json").read_text())) == 6
    assert all((out / f"{name}.png").is_file() for name in "acdf")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["raw", "end2end"])
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_list_of_files_gets_the_detections_of_each_file(
    exported, images, tmp_path, runtime, kind, threads
):
    files = sorted((images / "val2017").iterdir())[:7]
    contents = [files[0], files[1].read_bytes(), as_rgb(files[2]), Image.open(files[3])]
    detector = Detector(exported / kind, runtime=runtime, threads=threads)
    together = detector([*contents, *files[4:]], batch_size=3)
    for file, found in zip(files, together, strict=True):
        alone = detector(file)
        assert len(found) == len(alone) > 0
        assert np.array_equal(found.boxes, alone.boxes)
        assert np.array_equal(found.scores, alone.scores)
    with pytest.raises(MixDetError, match=r"gone\.jpg"):
        detector([*files, tmp_path / "gone.jpg"], batch_size=3)


def test_images_with_metadata_read_in_threads_leave_the_filters_of_warnings(tmp_path):
    """Pillow warns about the metadata of such images, and these warnings are ignored."""
    metadata = Image.Exif()
    metadata[274] = 6  # the orientation
    Image.fromarray(spot(0, 0)).save(tmp_path / "a.jpg", exif=metadata)
    before = warnings.filters[:]
    with thread_pool() as pool, map_ahead(pool, as_rgb, [tmp_path / "a.jpg"] * 300, 50) as read:
        assert {image.shape for image in read} == {(160, 120, 3)}
    assert warnings.filters == before
