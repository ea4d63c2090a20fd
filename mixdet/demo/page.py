"""The demo page: the user gives an image, and the page shows the boxes of one or two detectors.

The detectors run once for each image, with a low score threshold, and the server keeps their
detections. When the user moves the threshold, the server only draws the boxes again.
"""

from __future__ import annotations

import html
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from mixdet.digit_scenes.drawing import load_photographs, make_scene
from mixdet.errors import MixDetError
from mixdet.images import ImageLimits, as_rgb, read_image_file
from mixdet.inference import Detections
from mixdet.visual.boxes import draw_detections, resize_longer_side

LIMITS = ImageLimits(max_bytes=20 * 2**20, max_pixels=50_000_000)
MIN_THRESHOLD, INITIAL_THRESHOLD = 0.05, 0.3
MAX_SIDE = 1280  # larger images are shown with a longer side of this many pixels
MAX_QUEUE = 32  # number of images that can wait for a detector. Any further image is refused
MAX_SESSIONS = 32  # number of browser pages whose detections the server keeps
DELETE_CACHE = (60, 900)  # every 60 seconds, files that are older than 900 seconds are deleted
STYLE = """
footer {display: none !important}
.name, .name * {overflow-wrap: anywhere; line-height: 1.4}
.count p {font-size: 1.1em}
"""


@dataclass(frozen=True)
class DetectedImage:
    """An image, and what each detector detects in it.

    Attributes:
        image: (H, W, 3) uint8 RGB, in the size that the page shows.
        results: One pair per detector: its detections, with boxes in pixels of `image`, and the
            number of seconds that its call took.
    """

    image: np.ndarray
    results: list[tuple[Detections, float]]


def detect_upload(detectors: list[Callable], file: Mapping[str, Any]) -> DetectedImage:
    """Run the detectors on an uploaded file.

    Args:
        detectors: Functions that take an RGB array (H, W, 3) and the keyword `score_thr`.
        file: Gradio's description of the upload. Only `path` is used.

    Raises:
        MixDetError: The file is not an image, is larger than `LIMITS`, or was deleted.
    """
    path = Path(file["path"])
    if not path.is_file():
        raise MixDetError("the server has deleted this image: load it again")
    try:
        read_image_file(path, LIMITS)
        rgb = as_rgb(path)
    except MixDetError as error:
        raise MixDetError(str(error).replace(str(path), path.name)) from error
    longer = max(rgb.shape[:2])
    shown, scale = resize_longer_side(rgb, min(longer, MAX_SIDE))
    results = []
    for detector in detectors:
        start = time.perf_counter()
        detections = detector(rgb, score_thr=MIN_THRESHOLD)
        seconds = time.perf_counter() - start
        results.append((replace(detections, boxes=detections.boxes * scale), seconds))
    return DetectedImage(np.asarray(shown), results)


def draw_results(detected: DetectedImage, threshold: float) -> list[Any]:
    """Draw the boxes whose score reaches the threshold.

    Returns:
        Two values per detector: the image with boxes, (H, W, 3) uint8 RGB, and a line of Markdown
        with the number of boxes and the time.
    """
    outputs = []
    for detections, seconds in detected.results:
        high = detections.above(threshold)
        image = draw_detections(detected.image, high.boxes, high.scores, high.labels, high.names)
        boxes = "1 box" if len(high) == 1 else f"{len(high)} boxes"
        outputs += [image, f"**{boxes}** in {1000 * seconds:.0f} ms"]
    return outputs


def example_images(folder: str | os.PathLike) -> list[Path]:
    """Write example images to a folder: digit scenes, and photographs from scikit-image."""
    photographs = load_photographs()
    images = {f"digits_{index}": make_scene("val", index).image for index in range(4)}
    images |= {name: photographs[name] for name in ("chelsea", "coffee")}
    files = []
    for name, image in images.items():
        files.append(Path(folder, f"{name}.png"))
        Image.fromarray(image).save(files[-1])
    return files


def build_page(detectors: Mapping[str, Callable], examples: list[Path]) -> gr.Blocks:
    """Build the page.

    Args:
        detectors: One or two detectors by name. The page shows the name above the image.
        examples: Example images that the user can click.
    """
    callables = list(detectors.values())
    empty_outputs = [None, ""] * len(callables)

    def on_image(file: dict | None, threshold: float) -> list[Any]:
        if file is None:
            return [None, *empty_outputs]
        try:
            detected = detect_upload(callables, file)
        except MixDetError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return [detected, *draw_results(detected, threshold)]

    def on_threshold(
        detected: DetectedImage | None, file: dict | None, threshold: float
    ) -> list[Any]:
        if detected is None:  # gradio deletes old detections, so run the detectors again
            return on_image(file, threshold)
        return [detected, *draw_results(detected, threshold)]

    with gr.Blocks(title="MixDet", analytics_enabled=False, delete_cache=DELETE_CACHE) as page:
        gr.Markdown(
            "# MixDet\nDrop an image, paste one or use the camera. The image stays on this machine."
        )
        detected = gr.State(time_to_live=3600)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                image = gr.Image(
                    label="Image",
                    sources=["upload", "webcam", "clipboard"],
                    type="filepath",
                    height=320,
                    elem_id="image",
                )
                threshold = gr.Slider(
                    MIN_THRESHOLD,
                    1,
                    INITIAL_THRESHOLD,
                    step=0.01,
                    label="Score threshold",
                    elem_id="threshold",
                )
                # gr.Examples is not used, because its requests do not wait in the queue.
                gallery = gr.Dataset(
                    components=[image],
                    samples=[[str(file)] for file in examples],
                    type="index",
                    label="Examples",
                )
            outputs = []
            for index, name in enumerate(detectors):
                with gr.Column(scale=3, min_width=300):
                    gr.HTML(_heading(name), elem_classes="name", padding=False)
                    outputs.append(
                        gr.Image(
                            label="Boxes",
                            format="jpeg",
                            interactive=False,
                            buttons=["fullscreen", "download"],
                            elem_id=f"boxes{index}",
                        )
                    )
                    outputs.append(gr.Markdown(elem_id=f"count{index}", elem_classes="count"))
        gallery.click(examples.__getitem__, gallery, image, api_visibility="private")
        # With preprocessing, gradio would decode the file before `LIMITS` are checked.
        common = dict(preprocess=False, api_visibility="private")
        image.change(on_image, [image, threshold], [detected, *outputs], **common)
        threshold.change(
            on_threshold,
            [detected, image, threshold],
            [detected, *outputs],
            trigger_mode="always_last",
            show_progress="hidden",
            **common,
        )
    page.state_session_capacity = MAX_SESSIONS
    return page.queue(max_size=MAX_QUEUE, default_concurrency_limit=1)


def _heading(name: str) -> str:
    """Return HTML of two lines: the model's folder and, in small letters, its file."""
    first, _, second = html.escape(name).partition("/")
    return f"<b>{first}</b><br><small>{second or '&nbsp;'}</small>"
