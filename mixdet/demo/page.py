"""What the demo page shows and does: an image in, the boxes of one or two detectors out.

The network runs when an image comes; its boxes are kept, and the threshold draws them anew.
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
LEAST_SCORE, FIRST_SCORE = 0.05, 0.3  # kept at all; the slider's place when the page opens
SHOWN = 1280  # pixels of the longer side of an image with boxes
WAITING = 32  # images that wait for the network; more are refused
VISITORS = 32  # whose boxes are kept, each with an image of at most SHOWN x SHOWN pixels
FORGET = (60, 900)  # every so many seconds, files older than so many are deleted
STYLE = """
footer {display: none !important}
.name, .name * {overflow-wrap: anywhere; line-height: 1.4}
.count p {font-size: 1.1em}
"""


@dataclass(frozen=True)
class Seen:
    """What the networks found in one image.

    Attributes:
        image: (H, W, 3) uint8 RGB, as it is shown.
        found: For each detector its detections, with boxes in that image's pixels, and how long
            the call took, in seconds.
    """

    image: np.ndarray
    found: list[tuple[Detections, float]]


def look(detectors: list[Callable], file: Mapping[str, Any]) -> Seen:
    """Run the detectors over an uploaded file.

    Args:
        detectors: Each is called with an RGB array (H, W, 3) and `score_thr`.
        file: Gradio's description of the upload, of which only `path` is used.

    Raises:
        MixDetError: It is no image, a larger one than `LIMITS`, or deleted by now.
    """
    path = Path(file["path"])
    if not path.is_file():
        raise MixDetError("the image is forgotten by now: load it again")
    try:
        read_image_file(path, LIMITS)
        rgb = as_rgb(path)
    except MixDetError as error:
        raise MixDetError(str(error).replace(str(path), path.name)) from error
    longer = max(rgb.shape[:2])
    shown, scale = resize_longer_side(rgb, min(longer, SHOWN))
    found = []
    for detector in detectors:
        start = time.perf_counter()
        detections = detector(rgb, score_thr=LEAST_SCORE)
        seconds = time.perf_counter() - start
        found.append((replace(detections, boxes=detections.boxes * scale), seconds))
    return Seen(np.asarray(shown), found)


def draw(seen: Seen, threshold: float) -> list[Any]:
    """For each detector an image with the boxes of at least the threshold, and a line about it."""
    shown = []
    for detections, seconds in seen.found:
        kept = detections.above(threshold)
        image = draw_detections(seen.image, kept.boxes, kept.scores, kept.labels, kept.names)
        boxes = "1 box" if len(kept) == 1 else f"{len(kept)} boxes"
        shown += [image, f"**{boxes}** in {1000 * seconds:.0f} ms"]
    return shown


def example_images(folder: str | os.PathLike) -> list[Path]:
    """Images to try, written to a folder: digit scenes, and photographs of scikit-image's."""
    photographs = load_photographs()
    images = {f"digits_{index}": make_scene("val", index).image for index in range(4)}
    images |= {name: photographs[name] for name in ("chelsea", "coffee")}
    files = []
    for name, image in images.items():
        files.append(Path(folder, f"{name}.png"))
        Image.fromarray(image).save(files[-1])
    return files


def build_page(detectors: Mapping[str, Callable], examples: list[Path]) -> gr.Blocks:
    """The page.

    Args:
        detectors: One or two, by the names that stand above their images.
        examples: Images to try.
    """
    calls = list(detectors.values())
    nothing = [None, ""] * len(calls)

    def on_image(file: dict | None, threshold: float) -> list[Any]:
        if file is None:
            return [None, *nothing]
        try:
            seen = look(calls, file)
        except MixDetError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return [seen, *draw(seen, threshold)]

    def on_threshold(seen: Seen | None, file: dict | None, threshold: float) -> list[Any]:
        # What was seen is forgotten when many others have come since
        return [seen, *draw(seen, threshold)] if seen else on_image(file, threshold)

    with gr.Blocks(title="MixDet", analytics_enabled=False, delete_cache=FORGET) as page:
        gr.Markdown(
            "# MixDet\nDrop an image, paste one or use the camera. It stays on this machine."
        )
        seen = gr.State(time_to_live=3600)
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
                    LEAST_SCORE, 1, FIRST_SCORE, step=0.01, label="Least score", elem_id="threshold"
                )
                # gr.Examples would load them past the queue
                samples = [[str(file)] for file in examples]
                tries = gr.Dataset(
                    components=[image], samples=samples, type="index", label="Images to try"
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
        tries.click(examples.__getitem__, tries, image, api_visibility="private")
        # Not preprocessed: gradio would decode the file before our limits have seen it
        common = dict(preprocess=False, api_visibility="private")
        image.change(on_image, [image, threshold], [seen, *outputs], **common)
        threshold.change(
            on_threshold,
            [seen, image, threshold],
            [seen, *outputs],
            trigger_mode="always_last",
            show_progress="hidden",
            **common,
        )
    page.state_session_capacity = VISITORS
    return page.queue(max_size=WAITING, default_concurrency_limit=1)


def _heading(name: str) -> str:
    """A checkpoint's folder says more than its name, which stands small below; always two lines."""
    first, _, second = html.escape(name).partition("/")
    return f"<b>{first}</b><br><small>{second or '&nbsp;'}</small>"
