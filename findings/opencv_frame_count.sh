#!/usr/bin/env bash
# OpenCV may read fewer frames than its CAP_PROP_FRAME_COUNT states, even if the video is intact. So
# a smaller number of frames does not show that a video is cut off.
#
# Seen with Python 3.11, opencv-python-headless 5.0.0.93 and av 18.1.0 (PyAV makes the files):
#
#   100 frames (4 s) with 5 s of sound, Matroska      states 126, reads 100
#   the same, in MP4                                  states 100, reads 100
#   100 frames, the first 30 cut by an edit list      states 100, reads 70
#   first half of an AVI of 100 frames                states 100, reads 5, without an error
#
# FFmpeg's demuxer for Matroska gives no number of frames. OpenCV then multiplies the length of the
# longest track by the frame rate. For an MP4, OpenCV states the number of samples in the file. An
# edit list may exclude some samples from playback. `ffmpeg -ss 1.2 -i in.mp4 -c copy out.mp4` writes
# such a list.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet opencv-python-headless==5.0.0.93 av==18.1.0 numpy==2.4.6

cd "$folder"
OPENCV_FFMPEG_LOGLEVEL=-8 "$folder/venv/bin/python" - <<'PYTHON'
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def make(name, codec, sound=None):
    """Write 100 frames at 25 frames a second, and 5 seconds of silence with a codec for sound."""
    with av.open(name, "w") as file:
        video = file.add_stream(codec, rate=25, width=64, height=48, pix_fmt="yuv420p")
        audio = file.add_stream(sound, rate=48000) if sound else None
        for index in range(100):
            gray = np.full((48, 64, 3), index, np.uint8)
            file.mux(video.encode(av.VideoFrame.from_ndarray(gray, "rgb24")))
        file.mux(video.encode())
        for start in range(0, 5 * 48000 if sound else 0, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
            file.mux(audio.encode(frame))
        if sound:
            file.mux(audio.encode())


def trim(source, target):
    """Copy the packets, with times that are 1.2 s earlier: FFmpeg writes an edit list for them."""
    with av.open(source) as old, av.open(target, "w", options={"avoid_negative_ts": "disabled"}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        shift = int(Fraction(12, 10) / stream.time_base)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                new.mux(packet)


def frames(name):
    """Return the number of frames that OpenCV states, and the number that it reads."""
    capture = cv2.VideoCapture(name)
    stated, read = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0
    while capture.read()[0]:
        read += 1
    print(f"{name}: states {stated}, reads {read}")
    return stated, read


make("sound.mkv", "mpeg4", "aac")
make("sound.mp4", "mpeg4", "aac")
make("plain.mp4", "mpeg4")
make("plain.avi", "mpeg4")
trim("plain.mp4", "trimmed.mp4")
content = Path("plain.avi").read_bytes()
Path("half.avi").write_bytes(content[: len(content) // 2])
assert frames("sound.mkv") == (126, 100)
assert frames("sound.mp4") == (100, 100)
assert frames("plain.avi") == (100, 100)
stated, read = frames("trimmed.mp4")
assert stated == 100
assert 60 < read < 80
stated, read = frames("half.avi")
assert stated == 100
assert 0 < read < 80
PYTHON
echo "as stated"
