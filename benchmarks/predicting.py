"""`predict`: time tools/predict.py of this checkout and of another one on a folder of images."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mixdet.plugin

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from skimage import data
from sklearn.datasets import load_sample_images

from benchmarks.inference_files import SIZE, TEST_CFG
from benchmarks.networks import NETWORKS, check_known, our_config, our_model, peer_model
from benchmarks.timing import format_range, items_per_second, speedup, turn_order
from benchmarks.weights import copy_weights, initialize_as_trained
from mixdet.config.read import read_config
from mixdet.config.shipped import shipped_folder
from mixdet.deploy import export
from mixdet.errors import MixDetError
from mixdet.images import as_rgb
from mixdet.inference import Detector
from mixdet.machine import machine_record
from mixdet.visual.tables import text_table

IMAGE_WH = 640, 480
BOXES_PER_IMAGE = 7  # images of COCO have 7.3 objects on average
RUNTIMES = ("onnx", "openvino")
# The peak of `resource.getrusage` would include the memory of the process that starts the run
RUN_AND_PRINT_PEAK = """
import pathlib, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    status = pathlib.Path("/proc/self/status")
    text = status.read_text() if status.is_file() else ""
    print((text.partition("VmHWM:")[2].split() or ["nan"])[0])
"""


def measure(
    checkout: str, rounds: int = 5, images: int = 500, network: str = "MixNet-M"
) -> dict[str, object]:
    """Time `tools/predict.py` on JPEG files, from its start to its end, with the drawings.

    Each run is a process of its own, and takes the tool's default settings. The images are crops of
    photographs in scikit-learn and scikit-image. The network has random weights. The score
    threshold is set so that an image has about as many boxes as one of COCO.

    Args:
        checkout: The root of another checkout of MixDet.
        rounds: Number of timed rounds.
        images: Number of images.
        network: A key of `benchmarks.networks.NETWORKS`.

    Returns:
        machine, settings and rows. A row has images per second and peak memory in MB of both sides,
        the speedup, the ratio of both sides' shortest times, and the largest difference of the
        boxes in pixels, which is infinite if the sides found other classes or numbers of boxes.

    Raises:
        MixDetError: The folder is no checkout, the network is unknown, or a run fails.
    """
    check_known("--network", [network], NETWORKS)
    roots = {"other": Path(checkout), "mixdet": Path(__file__).parents[1]}
    if not (roots["other"] / "tools" / "predict.py").is_file():
        raise MixDetError(f"--checkout {checkout} has no tools/predict.py: give a checkout")
    measured_on = machine_record()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photos(folder / "images", images)
        _export(network, folder)
        threshold = _score_threshold(folder)
        rows = [_measure_runtime(runtime, folder, threshold, roots, rounds) for runtime in RUNTIMES]
    for row in rows:
        for side in roots:
            row[side]["images_per_second"] = items_per_second(row[side].pop("seconds"), images)
    settings = {"rounds": rounds, "images": images, "network": network, "score_thr": threshold}
    return {"kind": "predict", "machine": measured_on, "settings": settings, "rows": rows}


def write_photos(folder: Path, count: int) -> None:
    """Write JPEG files of 640 x 480 pixels: random crops of photographs."""
    folder.mkdir()
    photos = [*load_sample_images().images]
    photos += [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    rng = np.random.default_rng(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        height = int(rng.integers(150, min(photo.shape[0], photo.shape[1] * 3 // 4)))
        width = height * 4 // 3
        y, x = (
            rng.integers(0, side - crop + 1)
            for side, crop in zip(photo.shape, (height, width), strict=False)
        )
        crop = cv2.resize(photo[y : y + height, x : x + width], IMAGE_WH)
        noisy = crop + rng.normal(0, 3, crop.shape)  # as a camera's sensor adds
        rgb = noisy.clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:04}.jpg"), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


def _export(network: str, folder: Path) -> None:
    """Export a detector whose random weights give scores like a trained detector's."""
    init_default_scope("mmdet")
    cfg = read_config(str(shipped_folder("configs") / "ssdlite_mixnet_s_coco.py"))
    cfg.model = our_config(network, SIZE) | dict(test_cfg=TEST_CFG)
    Config.dump(cfg, folder / "config.py")
    peer, model = peer_model(network, SIZE), our_model(network, SIZE)
    photos = [
        torch.from_numpy(cv2.resize(as_rgb(file), (SIZE, SIZE))).permute(2, 0, 1)
        for file in sorted((folder / "images").iterdir())[:16]
    ]
    initialize_as_trained(peer, peer.data_preprocessor({"inputs": photos})["inputs"])
    copy_weights(peer, model)
    classes = [f"class {number}" for number in range(model.bbox_head.num_classes)]
    meta = {"dataset_meta": {"classes": classes}}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, folder / "random.pth")
    for runtime in RUNTIMES:  # a folder each, since old checkouts have no option --runtime
        paths = folder / "config.py", folder / "random.pth", folder / runtime
        export(*paths, targets=[runtime], check=False)


def _score_threshold(folder: Path) -> float:
    """Return the score that `BOXES_PER_IMAGE` detections per image exceed in the mean."""
    files = sorted((folder / "images").iterdir())[:24]
    found = Detector(folder / RUNTIMES[0])(files)
    scores = np.sort(np.concatenate([detections.scores for detections in found]))
    return float(scores[-min(BOXES_PER_IMAGE * len(files), len(scores))])


def _measure_runtime(
    runtime: str, folder: Path, threshold: float, roots: dict[str, Path], rounds: int
) -> dict[str, object]:
    seconds: dict[str, list[float]] = {side: [] for side in roots}
    peaks = dict.fromkeys(roots, 0.0)
    for turn, side in turn_order(roots, rounds):
        wall, peak = _run(
            roots[side],
            *(folder / runtime, folder / "images", "--out", folder / side),
            *("--score-thr", threshold),
        )
        peaks[side] = max(peaks[side], peak)
        if turn:
            seconds[side].append(wall)
    predictions = [json.loads((folder / side / "predictions.json").read_text()) for side in roots]
    return {
        "runtime": runtime,
        "boxes": sum(len(entry["boxes"]) for entry in predictions[0]) / len(predictions[0]),
        "largest_difference": max(map(_box_difference, *predictions)),
        "speedup": speedup(seconds["other"], seconds["mixdet"]),
        "ratio_of_minima": min(seconds["other"]) / min(seconds["mixdet"]),
        **{side: {"seconds": seconds[side], "peak_mb": peaks[side]} for side in roots},
    }


def _box_difference(entry: dict, other: dict) -> float:
    """Return the largest difference of the boxes of two entries for the same image, in pixels."""
    if (Path(entry["file"]).name, entry["names"]) != (Path(other["file"]).name, other["names"]):
        return math.inf
    boxes = (np.reshape(side["boxes"], (-1, 4)) for side in (entry, other))
    return float(np.abs(np.subtract(*boxes)).max(initial=0))


def _run(root: Path, *arguments: object) -> tuple[float, float]:
    """Run tools/predict.py of a checkout. Return its wall time, and its peak memory in MB.

    Raises:
        MixDetError: The run fails.
    """
    # With -P, Python does not take mixdet from the current folder
    command = [sys.executable, "-P", "-c", RUN_AND_PRINT_PEAK, str(root / "tools" / "predict.py")]
    path = os.pathsep.join([str(root.resolve()), *sys.path[1:]])
    start = time.perf_counter()
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    wall = time.perf_counter() - start
    if done.returncode:
        raise MixDetError(f"{command[-1]} failed: {''.join(done.stderr.splitlines()[-1:])}")
    return wall, float(done.stdout.splitlines()[-1]) / 1e3


def table(record: dict[str, object], markdown: bool = False) -> str:
    """Lay out the record of `measure` as text."""
    rows = [
        [
            row["runtime"],
            f"{row['boxes']:.1f}",
            *(format_range(row[side]["images_per_second"], 1) for side in ("other", "mixdet")),
            format_range(row["speedup"], 2),
            f"{row['ratio_of_minima']:.2f}",
            *(f"{row[side]['peak_mb']:.0f}" for side in ("other", "mixdet")),
            f"{row['largest_difference']:.1g}",
        ]
        for row in record["rows"]
    ]
    header = ["runtime", "boxes per image", "other, images/s", "this, images/s", "times faster"]
    header += ["of the minima", "other, peak MB", "this, peak MB", "largest difference, px"]
    return text_table(header, rows, markdown)
