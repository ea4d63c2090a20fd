"""Damaged videos are named, and drawn videos have rates and sizes that MPEG-4 can hold."""

from __future__ import annotations

import os
import struct
import threading
from fractions import Fraction

import cv2
import numpy as np
import pytest

from mixdet.errors import MixDetError
from mixdet.inference.predict import predict_files, predict_video
from mixdet.inference.videos import VideoReader, VideoWriter, mpeg4_rate
from tests.spots import BrightSpot, read_video, spot, write_video


def noisy_video(path, codec, count=100):
    """Write a video of noise. Noise fills most of the file, so a cut damages frames."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(count)]
    return write_video(path, frames, 25, codec)


KINDS = [("avi", "MJPG"), ("avi", "XVID"), ("mkv", "MJPG"), ("webm", "VP80"), ("wmv", "WMV2")]


@pytest.mark.parametrize(
    ("suffix", "codec"), [*KINDS, ("mp4", "mp4v"), ("mov", "MJPG"), ("flv", "FLV1")]
)
def test_undamaged_videos_give_all_frames_and_no_error(tmp_path, suffix, codec):
    video = noisy_video(tmp_path / f"v.{suffix}", codec, 30)
    assert len(predict_video(BrightSpot(), video, tmp_path / "out.mp4")) == 30


@pytest.mark.parametrize(("suffix", "codec"), [kind for kind in KINDS if kind[0] != "wmv"])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_the_error_for_a_cut_video_says_how_many_frames_it_has(tmp_path, suffix, codec, part):
    video = noisy_video(tmp_path / f"v.{suffix}", codec)
    content = video.read_bytes()
    video.write_bytes(content[: int(part * len(content))])
    check_broken(video, tmp_path)


@pytest.mark.parametrize(("suffix", "codec"), [*KINDS[:4], ("mp4", "mp4v"), ("mov", "MJPG")])
def test_the_error_for_a_video_with_a_hole_says_how_many_frames_it_has(tmp_path, suffix, codec):
    video = noisy_video(tmp_path / f"v.{suffix}", codec)
    content = bytearray(video.read_bytes())
    middle, length = len(content) // 2, len(content) // 4
    content[middle : middle + length] = bytes(length)
    video.write_bytes(content)
    check_broken(video, tmp_path)


def check_broken(video, folder):
    count = len(read_video(video)[0])
    assert 0 < count < 100
    (folder / "in").mkdir()
    video.rename(folder / "in" / video.name)
    write_video(folder / "in" / "whole.avi", [spot(0, 0)] * 3, 10)
    with pytest.raises(MixDetError) as caught:
        predict_files(BrightSpot(), [folder / "in"], folder / "out")
    message = str(caught.value)
    assert f"{video.name} is damaged or cut short: only {count} of 100 frames" in message
    assert f"the results of {count + 3} images are in" in message
    assert len(read_video(folder / "out" / f"{video.stem}.mp4")[0]) == count


def test_a_video_that_is_read_up_to_a_limit_gives_no_error(tmp_path):
    video = noisy_video(tmp_path / "v.avi", "MJPG", 20)
    assert len(predict_video(BrightSpot(), video, tmp_path / "out.mp4", frames=5)) == 5


def test_sound_may_be_longer_than_the_video(tmp_path):
    """A Matroska file states the length of its longest track."""
    video = noisy_video(tmp_path / "v.mkv", "MJPG")
    content = bytearray(video.read_bytes())
    place = content.index(b"\x44\x89\x88") + 3  # the element Duration, a float of 8 bytes
    (duration,) = struct.unpack_from(">d", content, place)
    assert duration == 4000
    struct.pack_into(">d", content, place, 6000)
    video.write_bytes(content)
    assert VideoReader(video).total == 150
    assert len(predict_video(BrightSpot(), video, tmp_path / "out.mp4")) == 100


def test_an_edit_list_may_leave_out_frames(tmp_path):
    """Phones and `ffmpeg -c copy` trim an MP4 with an edit list. All frames stay in the file."""
    video = noisy_video(tmp_path / "v.mp4", "mp4v")
    content = bytearray(video.read_bytes())
    place = content.index(b"elst") + 12  # after the version and the number of edits
    duration, media_time = struct.unpack_from(">Ii", content, place)
    scale = struct.unpack_from(">I", content, content.index(b"mdhd") + 16)[0]
    struct.pack_into(">Ii", content, place, duration * 7 // 10, media_time + scale * 12 // 10)
    video.write_bytes(content)
    reader = VideoReader(video)
    assert reader.total == 100
    assert len(predict_video(BrightSpot(), video, tmp_path / "out.mp4")) < 75


def test_a_pipe_that_ends_early_gives_no_error(tmp_path):
    video = noisy_video(tmp_path / "v.avi", "MJPG")
    content = video.read_bytes()
    pipe = tmp_path / "pipe.avi"
    os.mkfifo(pipe)
    sender = threading.Thread(target=lambda: pipe.write_bytes(content[: len(content) // 2]))
    sender.start()
    entries = predict_files(BrightSpot(), [pipe], tmp_path / "out")
    sender.join()
    assert 30 < len(entries) < 60


@pytest.mark.parametrize(
    ("rate", "held"),
    [
        (25, 25),
        (30000 / 1001, 29.97),
        (0.5, 0.5),
        (211.222, 211.22),  # 105,611 / 500
        (143.856, 143.856),  # 17,982 / 125
        (119.881, 119.88),
        (999.99, 1000.0),
        (90000, 65535),
        (0.0001, 0.002),
    ],
)
def test_frame_rates_become_rates_that_mpeg4_can_hold(tmp_path, rate, held):
    assert mpeg4_rate(rate) == pytest.approx(held, abs=1e-9)
    assert Fraction(mpeg4_rate(rate)).limit_denominator(1000).numerator <= 65535
    codec, path = cv2.VideoWriter.fourcc(*"mp4v"), str(tmp_path / "v.mp4")
    writer = cv2.VideoWriter(path, codec, mpeg4_rate(rate), (64, 48))
    assert writer.isOpened()
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    assert cv2.VideoCapture(path).get(cv2.CAP_PROP_FPS) == pytest.approx(held, rel=1e-4)


def test_a_video_whose_rate_mpeg4_cannot_hold_is_drawn(tmp_path):
    video = write_video(tmp_path / "v.avi", [spot(0, 0)] * 6, 211.222)
    assert len(predict_video(BrightSpot(), video, tmp_path / "out.mp4")) == 6
    frames, rate = read_video(tmp_path / "out.mp4")
    assert len(frames) == 6
    assert rate == pytest.approx(211.22)


def test_the_rate_of_a_clock_is_not_used_as_the_frame_rate(tmp_path, monkeypatch):
    """Browsers record WebM without a frame rate. OpenCV then returns the clock rate, 1000."""
    source = write_video(tmp_path / "v.avi", [spot(0, 0)] * 9, 25)

    class Clock:
        def __init__(self, path):
            self.capture = real(path)

        def get(self, key):
            return 1000.0 if key == cv2.CAP_PROP_FPS else self.capture.get(key)

        def __getattr__(self, name):
            return getattr(self.capture, name)

    real = cv2.VideoCapture
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "VideoCapture", Clock)
        predict_video(BrightSpot(), source, tmp_path / "out.mp4")
    assert read_video(tmp_path / "out.mp4")[1] == pytest.approx(25)


@pytest.mark.parametrize(
    ("shape", "written"),
    [((4, 9000), (4, 8190)), ((1, 480), (2, 480)), ((481, 641), (482, 642))],
)
def test_sizes_that_mpeg4_cannot_hold_are_replaced(tmp_path, shape, written):
    writer = VideoWriter(tmp_path / "v.mp4")
    for _ in range(3):
        writer.write(np.zeros((*shape, 3), np.uint8), 25)
    writer.close()
    assert writer.fault() is None
    frames, _ = read_video(tmp_path / "v.mp4")
    assert [frame.shape[:2] for frame in frames] == [written] * 3


def test_a_drawn_video_that_is_not_complete_is_named(tmp_path, monkeypatch):
    source = write_video(tmp_path / "v.avi", [spot(0, 0)] * 6, 10)

    class FullDisk:
        def __init__(self, path, *settings):
            self.writer, self.frames = real(path, *settings), 0

        def write(self, frame):
            self.frames += 1
            if self.frames < 4:
                self.writer.write(frame)

        def __getattr__(self, name):
            return getattr(self.writer, name)

    real = cv2.VideoWriter
    monkeypatch.setattr(cv2, "VideoWriter", type("W", (FullDisk,), {"fourcc": real.fourcc}))
    with pytest.raises(MixDetError, match=r"v\.mp4 is not complete: is the disk full\?"):
        predict_files(BrightSpot(), [source], tmp_path / "out")
