"""`predict` finds the images and videos in a folder, and reports the files that it skips."""

from __future__ import annotations

import os
import shutil

import pytest
from PIL import Image

from mixdet.errors import MixDetError
from mixdet.images import IMAGE_SUFFIXES
from mixdet.images.decoding import IMAGE_FORMATS
from mixdet.inference.inputs import find_inputs
from mixdet.inference.predict import predict_files
from tests.spots import BrightSpot, spot, write_video


@pytest.fixture
def folder(tmp_path):
    """A folder with one image, `a.png`."""
    (tmp_path / "in").mkdir()
    Image.fromarray(spot(0, 0)).save(tmp_path / "in" / "a.png")
    return tmp_path / "in"


def found(folder, out=None):
    """Return the images and videos that are found in a folder, as paths relative to the folder."""
    inputs = find_inputs([folder], out or folder.parent / "out")
    return [os.path.relpath(source, folder) for source, _ in inputs.images + inputs.videos]


def test_subfolders_may_have_the_suffix_of_a_file(folder, tmp_path):
    for name in ("clip.mp4", "b.jpg"):
        (folder / name).mkdir()
    shutil.copy(folder / "a.png", folder / "clip.mp4" / "0001.png")
    # clip.avi would be drawn as clip.mp4, but the output has a folder of this name
    write_video(folder / "clip.avi", [spot(0, 0)] * 2, 10)
    entries = predict_files(BrightSpot(), [folder], tmp_path / "out")
    assert len(entries) == 4
    drawn = {str(file.relative_to(tmp_path / "out")) for file in tmp_path.glob("out/**/*.[mp]*")}
    assert drawn == {"a.png", "clip.mp4", "clip.mp4/0001.png", "clip_2.mp4"}


def test_the_suffixes_of_every_format_that_can_be_read_are_known():
    Image.init()
    suffixes = {suffix for suffix, kind in Image.EXTENSION.items() if kind in IMAGE_FORMATS}
    assert suffixes - {".mpo"} <= IMAGE_SUFFIXES


def test_a_file_that_can_be_read_by_its_path_is_also_found_in_its_folder(folder, tmp_path):
    image = Image.open(folder / "a.png")
    for suffix in ("avif", "gif", "jp2", "ppm", "jfif", "jpe", "JPG", "tif", "apng", "webp"):
        image.save(folder / f"{suffix}.{suffix}")
    for name in found(folder):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (entry,) = predict_files(BrightSpot(), [folder / name], tmp_path / "out")
        assert entry["names"] == ["spot"], name
    assert len(predict_files(BrightSpot(), [folder], tmp_path / "out")) == 11


def test_skipped_files_are_counted(folder, tmp_path, capsys):
    for name in ("a.heic", "b.HEIC", "notes.txt", "README", "._a.png"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    assert len(predict_files(BrightSpot(), [folder], tmp_path / "out")) == 1
    line = capsys.readouterr().err.splitlines()[0]
    assert line == "neither images nor videos: 2 .heic, 1 without a suffix, 1 .txt"
    (folder / "a.png").unlink()
    with pytest.raises(MixDetError, match=r"holds neither images nor videos \(2 \.heic, "):
        predict_files(BrightSpot(), [folder], tmp_path / "out")


def test_linked_subfolders_are_searched_once(folder, tmp_path):
    far, near = tmp_path / "far", folder / "near"
    for place in (far, near):
        place.mkdir()
        shutil.copy(folder / "a.png", place / "z.png")
    links = {
        folder / "linked": far,
        folder / "again": far,
        folder / "b": near,  # comes before `near` in the alphabet, but is only a link
        folder / "self": folder,
        near / "up": folder.parent,
        far / "back": folder,
        far / "far": far,
    }
    for link, target in links.items():
        link.symlink_to(target, target_is_directory=True)
    assert found(folder) == ["a.png", "again/z.png", "near/z.png"]
    # the output folder is not searched, even if a link leads to it
    (folder / "out").mkdir()
    shutil.copy(folder / "a.png", folder / "out" / "a.png")
    (near / "results").symlink_to(folder / "out")
    assert found(folder, folder / "out") == ["a.png", "again/z.png", "near/z.png"]


def test_broken_links_are_named_and_pipes_are_skipped(folder, tmp_path):
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe.mp4")
    with pytest.raises(MixDetError, match=r"gone\.png.*loop\.jpg.*results of 1 image are") as error:
        predict_files(BrightSpot(), [folder], tmp_path / "out")
    assert "/pipe." not in str(error.value)


def test_a_subfolder_that_cannot_be_read_is_named(folder, tmp_path, monkeypatch):
    (folder / "secret").mkdir()
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MixDetError, match=r"secret cannot be read \(Permission denied\)"):
        predict_files(BrightSpot(), [folder], tmp_path / "out")
    assert (tmp_path / "out" / "a.png").is_file()


SUFFIXES = "3gp asf divx flv m2ts mpe mpg mts mxf ogv qt ts vob wmv WMV"


@pytest.mark.parametrize("suffix", SUFFIXES.split())
def test_videos_are_found_by_every_suffix(folder, tmp_path, suffix):
    (folder / "a.png").unlink()
    stream = suffix in ("m2ts", "mts", "ts")
    source = write_video(
        tmp_path / ("v.ts" if stream else "v.avi"),
        [spot(0, 0)] * 5,
        10,
        "mp4v" if stream else "MJPG",
    )
    shutil.move(source, folder / f"clip.{suffix}")
    entries = predict_files(BrightSpot(), [folder], tmp_path / "out")
    assert [entry["frame"] for entry in entries] == list(range(5))
    assert (tmp_path / "out" / "clip.mp4").is_file()


def test_typescript_is_no_video(folder, tmp_path):
    (folder / "main.ts").write_text("export const a = 1;\n" * 50)
    (folder / "module.mts").write_text("G" + "export const a = 1;\n" * 50)
    (folder / "empty.ts").touch()
    assert found(folder) == ["a.png"]


def test_the_content_tells_what_a_file_without_a_suffix_is(folder, tmp_path):
    shutil.copy(folder / "a.png", tmp_path / "image")
    write_video(tmp_path / "v.avi", [spot(0, 0)] * 3, 10).rename(tmp_path / "video.of-monday")
    (tmp_path / "neither").write_text("words")
    named = [tmp_path / "image", tmp_path / "video.of-monday"]
    entries = predict_files(BrightSpot(), named, tmp_path / "out")
    assert [entry.get("frame") for entry in entries] == [None, 0, 1, 2]
    assert (tmp_path / "out" / "image.png").is_file()
    assert (tmp_path / "out" / "video.mp4").is_file()
    with pytest.raises(MixDetError, match=r"cannot read .*neither"):
        predict_files(BrightSpot(), [tmp_path / "neither"], tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["100%.avi", "a%02d.avi", "shot_0001.avi", "clip:1.avi", "new\nline.avi"]
)
def test_videos_with_odd_names_are_read(tmp_path, name):
    write_video(tmp_path / "v.avi", [spot(0, 0)] * 3, 10).rename(tmp_path / name)
    assert len(predict_files(BrightSpot(), [tmp_path / name], tmp_path / "out")) == 3


def test_a_video_whose_name_is_not_utf8_is_refused_and_images_are_predicted(folder, tmp_path):
    image, video = (
        os.fsdecode(os.fsencode(folder) + name) for name in (b"/\xff.png", b"/\xfe.avi")
    )
    try:
        shutil.copy(folder / "a.png", image)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    write_video(tmp_path / "v.avi", [spot(0, 0)] * 3, 10).rename(video)
    with pytest.raises(MixDetError, match=r"not UTF-8.*results of 2 images"):
        predict_files(BrightSpot(), [folder], tmp_path / "out")
