"""A video file that lost frames is named, whichever container it is in, and a sound file never is.

FFmpeg's own muxers make the files.
"""

from __future__ import annotations

import functools
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from mixdet.inference.predict import predict_video
from mixdet.inference.videos import VideoReader
from tests.spots import BrightSpot, read_video, spot

# Suffix, format, codec of the video, codec of the sound, and options of the muxer
CONTAINERS = {
    "avi": ("avi", "avi", "mjpeg", "mp2", {}),
    "divx": ("avi", "avi", "mpeg4", "mp2", {}),
    "matroska": ("mkv", "matroska", "mpeg4", "aac", {}),
    "webm": ("webm", "webm", "libvpx", "libopus", {}),
    "mp4": ("mp4", "mp4", "mpeg4", "aac", {"movflags": "faststart"}),
    "wmv": ("wmv", "asf", "wmv2", "mp2", {}),
    "flv": ("flv", "flv", "flv1", "aac", {}),
    "transport stream": ("ts", "mpegts", "mpeg2video", "mp2", {}),
    "m2ts": ("m2ts", "mpegts", "mpeg2video", "mp2", {"mpegts_m2ts_mode": "1"}),
    "program stream": ("mpg", "mpeg", "mpeg1video", "mp2", {}),
    "dvd": ("vob", "vob", "mpeg2video", "mp2", {}),
    "mxf": ("mxf", "mxf", "mpeg2video", "pcm_s16le", {}),
    "fragments": ("mp4", "mp4", "mpeg4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "ogg": ("ogv", "ogg", "libvpx", "libopus", {}),
}
FRAMES = 100


def encode(path, name, seconds_of_sound, gap, options):
    """Write a file of 100 frames of noise at 25 a second.

    Args:
        path: The file.
        name: Key of `CONTAINERS`.
        seconds_of_sound: Length of the sound. 0 for none.
        gap: Number of frames without a frame, in the middle.
        options: Further options of the muxer.
    """
    _, container, codec, sound_codec, own_options = CONTAINERS[name]
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", format=container, options={**own_options, **options}) as file:
        pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        video = file.add_stream(codec, rate=25, width=64, height=48, pix_fmt=pixels)
        video.bit_rate = 2_000_000
        sound = file.add_stream(sound_codec, rate=48000) if seconds_of_sound else None
        for index in range(FRAMES):
            noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, "rgb24")
            frame.pts, frame.time_base = index + gap * (index >= 50), Fraction(1, 25)
            file.mux(video.encode(frame))
        file.mux(video.encode())
        if sound:
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 960), np.float32), "fltp", "stereo")
            silence.sample_rate, silence.time_base = 48000, Fraction(1, 48000)
            resampler = av.AudioResampler(sound.codec_context.format, "stereo", 48000)
            for start in range(0, seconds_of_sound * 48000, 960):
                silence.pts = start
                for part in resampler.resample(silence):
                    file.mux(sound.encode(part))
            file.mux(sound.encode())


@functools.cache
def encoded(name, seconds_of_sound=0, gap=0, **options):
    """Return the content of a file that `encode` writes."""
    with tempfile.TemporaryDirectory() as folder:
        encode(Path(folder, "video"), name, seconds_of_sound, gap, options)
        return Path(folder, "video").read_bytes()


def fault_of(folder, name, content):
    """Return what is said about a file, and the number of frames that are read."""
    path = folder / f"video.{CONTAINERS[name][0]}"
    path.write_bytes(content)
    reader = VideoReader(path)
    count = sum(1 for _ in reader.frames())
    fault = reader.fault()
    reader.close()
    return fault, count


def packets_of(content, size=188):
    return [content[start : start + size] for start in range(0, len(content), size)]


DAMAGES = {
    "cut": lambda content: content[: len(content) * 6 // 10 | 255],
    "zeros": lambda content: overwritten(content, bytes(len(content) // 4)),
    "noise": lambda content: overwritten(
        content, np.random.default_rng(1).bytes(len(content) // 4)
    ),
    "missing": lambda content: (
        content[: len(content) // 2 | 255] + content[len(content) * 3 // 4 & ~1 :]
    ),
}


def overwritten(content, data):
    middle = len(content) // 2
    return content[:middle] + data + content[middle + len(data) :]


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_lost_frames_is_named(tmp_path, name, damage):
    fault, count = fault_of(tmp_path, name, DAMAGES[damage](encoded(name)))
    assert count < FRAMES
    assert fault is not None
    assert f"is damaged or cut short: only {count}" in fault


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize(
    "options", [{}, {"seconds_of_sound": 7}, {"gap": 30}], ids=["plain", "long sound", "pause"]
)
def test_a_whole_file_has_no_fault(tmp_path, name, options):
    content = encoded(name, **options)
    assert fault_of(tmp_path, name, content) == (None, FRAMES)
    assert fault_of(tmp_path, name, content + bytes(1000)) == (None, FRAMES)  # padding


@pytest.mark.parametrize("name", ["webm", "flv", "wmv"])
def test_a_live_recording_states_no_length_and_has_no_fault(tmp_path, name):
    live = {"webm": {"live": "1"}, "flv": {"flvflags": "no_duration_filesize"}, "wmv": {}}[name]
    content = encoded(name, **live)
    if name == "wmv":  # the flag for a live recording, and no number of packets
        content = bytearray(content)
        content[content.index(bytes.fromhex("a1dcab8c47a9cf11")) + 88] |= 1
        header = int.from_bytes(content[16:24], "little")
        content[header + 40 : header + 48] = bytes(8)
    assert fault_of(tmp_path, name, bytes(content)) == (None, FRAMES)


def test_a_transport_stream_may_begin_anywhere_and_end_after_any_packet(tmp_path):
    content = encoded("transport stream")
    fault, count = fault_of(tmp_path, "transport stream", content[len(content) // 3 | 1 :])
    assert fault is None
    assert 40 < count < 70
    half = b"".join(packets_of(content)[: len(content) // 188 // 2])
    fault, count = fault_of(tmp_path, "transport stream", half)
    assert fault is None
    assert 40 < count < 60


def test_a_program_stream_may_begin_anywhere(tmp_path):
    content = encoded("program stream")
    fault, count = fault_of(tmp_path, "program stream", content[len(content) // 3 | 1 :])
    assert fault is None
    assert 40 < count < 70


@pytest.mark.parametrize("name", ["transport stream", "program stream"])
def test_recordings_may_be_joined(tmp_path, name):
    fault, count = fault_of(tmp_path, name, encoded(name) * 2)
    assert fault is None
    assert count > FRAMES


def without_packets(content, flagged):
    """Take packets out of a transport stream, and optionally flag the place as a discontinuity."""
    packets = packets_of(content)
    video = 0x100
    is_video = [int.from_bytes(packet[1:3], "big") & 0x1FFF == video for packet in packets]
    first = len(packets) // 2
    # The next packet of the video with an adaptation field, which holds the flag
    last = next(
        index
        for index in range(first + 500, len(packets))
        if is_video[index] and packets[index][3] & 0x20 and packets[index][4]
    )
    if flagged:
        packet = bytearray(packets[last])
        packet[5] |= 0x80
        packets[last] = bytes(packet)
    return b"".join(packets[:first] + packets[last:])


def test_packets_that_a_transport_stream_lacks_are_noticed_by_their_numbers(tmp_path):
    lacking = without_packets(encoded("transport stream"), flagged=False)
    fault, count = fault_of(tmp_path, "transport stream", lacking)
    assert f"only {count}" in fault
    flagged = without_packets(encoded("transport stream"), flagged=True)
    assert fault_of(tmp_path, "transport stream", flagged) == (None, count)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_the_rate_of_a_browsers_webm_does_not_depend_on_the_batch_size(tmp_path, batch_size):
    """Browsers write times in milliseconds and no frame rate. OpenCV then returns 1000."""
    source = tmp_path / "recording.webm"
    with av.open(str(source), "w") as file:
        video = file.add_stream("libvpx", rate=1000, width=64, height=48, pix_fmt="yuv420p")
        for index in range(40):
            frame = av.VideoFrame.from_ndarray(spot(index, 0, (48, 64)), "rgb24")
            frame.pts, frame.time_base = 100 * index + 7 * (index % 3), Fraction(1, 1000)
            file.mux(video.encode(frame))
        file.mux(video.encode())
    assert cv2.VideoCapture(str(source)).get(cv2.CAP_PROP_FPS) == 1000
    entries = predict_video(BrightSpot(), source, tmp_path / "out.mp4", batch_size=batch_size)
    assert len(entries) == 40
    frames, rate = read_video(tmp_path / "out.mp4")
    assert len(frames) == 40
    assert rate == pytest.approx(10, rel=0.03)
