"""Find the images and the videos to predict on, and the file to write for each one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import cv2

from mixdet.errors import MixDetError
from mixdet.images import IMAGE_SUFFIXES, missing_decoder

# fmt: off
VIDEO_SUFFIXES = {
    ".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".h264", ".h265",
    ".hevc", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4",
    ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv", ".y4m",
}
# fmt: on
# Suffixes that both MPEG transport streams and source files of TypeScript have
TYPESCRIPT_SUFFIXES = {".mts", ".ts"}
# The drawing of an image in one of these formats has the same format. The drawing of any other
# image is a PNG, which every viewer can open
OUTPUT_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}

Source = Path | int  # a file, or the number of a camera


@dataclass
class InputFiles:
    """The inputs of a run.

    Attributes:
        images: Pairs of an image and the file to write.
        videos: Pairs of a video or the number of a camera, and the file to write.
        passed_over: Number of files in the input folders that were skipped, by suffix. Their
            suffixes belong to neither images nor videos.
        faults: One line for each folder that cannot be read.
    """

    images: list[tuple[Path, Path]] = field(default_factory=list)
    videos: list[tuple[Source, Path]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def find_inputs(inputs: Iterable[str | os.PathLike | int], out: str | os.PathLike) -> InputFiles:
    """List the input files, including the files in folders, and the file to write for each one.

    The results of a folder keep the relative paths of its files. If two results would have the same
    path, the second one gets `_2` at the end of its name, the third one `_3`, and so on.

    Args:
        inputs: Files, folders and numbers of cameras. A search of a folder includes its subfolders
            and linked folders. Each folder is searched once.
        out: Folder for the results. It is not searched.

    Raises:
        MixDetError: An input is missing or would be overwritten, or a folder has no images and no
            videos.
    """
    out = Path(out)
    input_files = InputFiles()
    sources: list[tuple[Source, Path, bool]] = []  # input, file to write, whether it is a video
    for item in inputs:
        if isinstance(item, int):
            sources.append((item, out / f"camera{item}.mp4", True))
            continue
        path = Path(item)
        for source in _list_files(path, out, input_files):
            name = source.relative_to(path) if path.is_dir() else Path(source.name)
            video = _is_video(source)
            sources.append((source, (out / name).with_suffix(_output_suffix(name, video)), video))
    # A result cannot have the path of a folder that other results are written to
    taken = {parent for _, target, _ in sources for parent in target.parents}
    for source, wanted, video in sources:
        target = free_name(wanted, taken)
        taken.add(target)
        (input_files.videos if video else input_files.images).append((source, target))
    files = {os.path.realpath(source) for source, *_ in sources if isinstance(source, Path)}
    for _, target in input_files.images + input_files.videos:
        if os.path.realpath(target) in files:
            raise MixDetError(f"{target} would be overwritten: choose another --out")
    return input_files


def free_name(path: Path, taken: Container[Path]) -> Path:
    """Return the path, or the path with `_2`, `_3`, ... at its end if it is taken."""
    free = path
    for number in count(2):
        if free not in taken:
            break
        free = path.with_stem(f"{path.stem}_{number}")
    return free


def describe(passed_over: Counter[str]) -> str:
    """Return the numbers of files by suffix, such as `3 .heic, 1 .txt`."""
    return ", ".join(f"{number} {suffix}" for suffix, number in passed_over.most_common())


def _list_files(path: Path, out: Path, input_files: InputFiles) -> list[Path]:
    """Return the file itself, or the images and videos in a folder, except those in `out`."""
    if not path.is_dir():
        if not os.path.lexists(path):
            raise MixDetError(f"{path}: no such file or folder")
        return [path]
    if os.path.realpath(path) == os.path.realpath(out):
        raise MixDetError(
            f"--out {out} is an input folder: choose another folder, or a folder inside it"
        )
    files, passed_over = [], Counter()
    for file in sorted(_walk(path, out, input_files.faults)):
        if file.name.startswith("._"):  # macOS keeps the metadata of another file here
            continue
        if file.suffix.lower() in IMAGE_SUFFIXES or _is_video_of_a_folder(file):
            files.append(file)
        else:
            passed_over[file.suffix.lower() or "without a suffix"] += 1
    input_files.passed_over += passed_over
    if not files:
        others = f" ({describe(passed_over)})" if passed_over else ""
        reasons = "".join(f"{fault}; " for fault in input_files.faults)
        raise MixDetError(
            f"{reasons}{path} holds neither images nor videos{others}: name another folder"
        )
    return files


def _walk(folder: Path, out: Path, faults: list[str]) -> Iterator[Path]:
    """Yield the files in a folder, in its subfolders, and in the folders that its links point to.

    Each folder is visited once. A folder inside `folder` is visited by its own path, not through a
    link. A link to `folder` or to one of its parents is not followed.
    """
    start = Path(os.path.realpath(folder))
    waiting, visited = [folder], {os.path.realpath(out)}

    def refuse(error: OSError) -> None:
        faults.append(f"{error.filename} cannot be read ({error.strerror})")

    while waiting:
        for root, folders, names in os.walk(waiting.pop(0), onerror=refuse):
            place = os.path.realpath(root)
            if place in visited:
                folders.clear()
                continue
            visited.add(place)
            links = [Path(root, name) for name in sorted(folders) if Path(root, name).is_symlink()]
            waiting += [link for link in links if not start.is_relative_to(os.path.realpath(link))]
            yield from (file for name in names if not _is_special(file := Path(root, name)))


def _is_special(file: Path) -> bool:
    """Tell whether a path is a device, a socket or a named pipe. Reading it can block forever."""
    try:
        return file.exists() and not file.is_file()
    except OSError:
        return False  # the error is reported when the file is read


def _is_video_of_a_folder(file: Path) -> bool:
    suffix = file.suffix.lower()
    if suffix not in TYPESCRIPT_SUFFIXES:
        return suffix in VIDEO_SUFFIXES
    start = _start(file)
    return start is None or b"\0" in start  # source code has no such byte


def _start(file: Path) -> bytes | None:
    """Return the first bytes of a file. None if it cannot be read: the error is reported later."""
    try:
        with file.open("rb") as content:
            return content.read(2**14)
    except OSError:
        return None


def _is_video(file: Path) -> bool:
    """Tell whether a file is a video. If its suffix is unknown, its content decides."""
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES or suffix in VIDEO_SUFFIXES:
        return suffix in VIDEO_SUFFIXES
    if not file.is_file():
        return file.exists()  # a device or a named pipe
    if not is_utf8(file) or missing_decoder(_start(file) or b""):
        return False
    return not cv2.haveImageReader(str(file))


def is_utf8(path: str | os.PathLike) -> bool:
    """Tell whether a path is valid UTF-8. OpenCV would crash the process for any other path."""
    try:
        return bool(os.fspath(path).encode())
    except UnicodeEncodeError:
        return False


def _output_suffix(name: Path, video: bool) -> str:
    if video:
        return ".mp4"
    return name.suffix.lower() if name.suffix.lower() in OUTPUT_SUFFIXES else ".png"
