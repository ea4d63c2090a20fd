"""Latency side by side: each form of a detector in its own process, in turns."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

from mixdet.analysis.benchmark.contestants import (
    EXPORTED_FORMS,
    FORMS,
    MATRIX,
    OURS,
    OURS_INT8,
    PEER,
    start,
)
from mixdet.analysis.benchmark.processes import served, take_turns
from mixdet.analysis.benchmark.timing import median_of, speedup, spread
from mixdet.analysis.machine import machine
from mixdet.analysis.plots import colour, svg
from mixdet.analysis.tables import text_table
from mixdet.deploy.exported import read_manifest
from mixdet.deploy.runtimes import FILES, INT8_PACKAGES, PACKAGES
from mixdet.errors import MixDetError

PARTS = ("end to end", "network", "decode and NMS")


def measure_infer(
    rounds: int = 5,
    network: str = "MixNet-M",
    batches: Sequence[int] = (1, 8),
    threads: Sequence[int] = (1, 2),
    folders: Sequence[str] = (),
    without: Sequence[str] = (),
) -> dict[str, object]:
    """Time pictures of 640 x 480 to boxes at a score of 0.05, the network alone, and the rest.

    Forms whose runtime or compiler is missing are left out. Weights are random, with the scores
    that a trained detector would have; torchvision's have no such scores, so that its NMS is idle.
    INT8 is calibrated on noise, which says nothing of its mAP: `folders` are for that.

    Args:
        rounds: How often each is timed; one picture takes a round four times.
        network: One of `peers.NETWORKS`.
        batches: Pictures at a time; exported files of kind raw take them one by one, or eight on
            OpenVINO.
        threads: Each number with processes of its own, which keep to so many cores.
        folders: Exported folders besides, such as quantised ones: each with every runtime that it
            has a file for, and the mAP that its file has.
        without: Forms to leave out: those with one of these words, such as 'compiled', which
            takes minutes to compile.

    Returns:
        machine, settings and rows: milliseconds a picture of each part.

    Raises:
        MixDetError: A folder is not an exported one of kind raw, or there is no such network.
    """
    from mixdet.analysis.benchmark.peers import NETWORKS, check_known  # heavy
    from mixdet.analysis.benchmark.torch_forms import POST, SIZE, prepare

    check_known("--network", [network], NETWORKS)
    exported = _exported_forms(folders)
    found = machine()
    forms = [form for form in FORMS if _runs(form) and not any(word in form for word in without)]
    exports: dict[str, set[str]] = {}
    for folder, runtime in (EXPORTED_FORMS[form] for form in forms if form in EXPORTED_FORMS):
        exports.setdefault(folder, set()).add(runtime)
    rows = []
    with tempfile.TemporaryDirectory() as made:
        madds = prepare(network, Path(made), exports)
        names = {form: {"form": form} for form in forms} | exported
        for number in threads:
            with contextlib.ExitStack() as stack:
                asks = {
                    form: stack.enter_context(served(start, form, made, number, network))
                    for form in names
                }
                for batch in batches:
                    rows += _rows(asks, names, batch, number, rounds, madds)
    settings = {"network": network, "size": SIZE, "rounds": rounds, "score_thr": POST["score_thr"]}
    return {"kind": "infer", "machine": found, "settings": settings, "rows": rows}


def _runs(form: str) -> bool:
    if "compiled" in form:
        return shutil.which("g++") is not None
    folder, runtime = EXPORTED_FORMS.get(form, (None, None))
    packages = [PACKAGES[runtime]] if runtime else []
    if folder == OURS_INT8:
        packages += INT8_PACKAGES
    return all(importlib.util.find_spec(name) is not None for name in packages)


def _exported_forms(folders: Sequence[str]) -> dict[tuple[str, str], dict[str, object]]:
    """By path and runtime of each exported file, what its row says of it."""
    found = {}
    paths = [Path(folder).resolve() for folder in folders]
    names = [path.name for path in paths]
    for folder in paths:
        name = folder.name if names.count(folder.name) == 1 else folder
        manifest = read_manifest(folder)
        if manifest["kind"] != "raw":
            raise MixDetError(f"--folders {folder}: its file decodes itself: export --kind raw")
        for runtime, (file, *_) in FILES.items():
            if file in manifest["files"] and importlib.util.find_spec(PACKAGES[runtime]):
                about = {"form": f"{name}, {runtime}"}
                if measured := manifest.get("measured", {}).get(runtime):
                    about["mAP"] = measured["mAP"]
                found[str(folder), runtime] = about
    return found


def _rows(
    asks: dict, names: dict, batch: int, threads: int, rounds: int, madds: dict[str, int]
) -> list[dict[str, object]]:
    tasks = {
        (form, part): (process, (part, batch))
        for part in PARTS
        for form, process in asks.items()
        if form != MATRIX or part == "network"
    }
    seconds = take_turns(tasks, rounds * (4 if batch == 1 else 1), threads, warm=True)
    rows = []
    for form in asks:
        times = {
            part: median_of([1000 * value / batch for value in seconds[form, part]])
            for part in PARTS
            if (form, part) in seconds
        }
        row = {**names[form], "batch": batch, "threads": threads, "milliseconds": times}
        if form in FORMS:
            count = madds.get(form.partition(" SSDLite")[0], madds[OURS])
            row["ms_per_billion"] = times["network"]["median"] / count * 1e9
        if form != MATRIX:
            row["rest_share"] = times["decode and NMS"]["median"] / times["end to end"]["median"]
        if form in FORMS and form != MATRIX and PEER in asks:  # folders may be of another size
            row["speedup"] = speedup(seconds[PEER, PARTS[0]], seconds[form, PARTS[0]])
        rows.append(row)
    return rows


def infer_summary(record: dict[str, object]) -> str:
    """The medians end to end, and how many times faster, of all settings in one Markdown table."""
    rows = [row for row in record["rows"] if PARTS[0] in row["milliseconds"]]
    settings = list(dict.fromkeys((row["batch"], row["threads"]) for row in rows))
    cells: dict[str, dict[tuple, str]] = {}
    scores = {}
    for row in rows:
        ratio = f" ({row['speedup']['median']:.1f})" if "speedup" in row else ""
        text = f"{row['milliseconds'][PARTS[0]]['median']:.1f}{ratio}"
        cells.setdefault(row["form"], {})[row["batch"], row["threads"]] = text
        scores[row["form"]] = f"{row['mAP']:.4f}" if "mAP" in row else ""
    times = any("speedup" in row for row in rows)
    header = ["ms an image" + " (times faster)" * times]
    header += [f"batch {batch}, threads {threads}" for batch, threads in settings]
    header += ["mAP"] * any(scores.values())
    table = [
        [form, *(of[key] for key in settings), scores[form]][: len(header)]
        for form, of in cells.items()
    ]
    return text_table(header, table, markdown=True)


def infer_table(record: dict[str, object], markdown: bool = False) -> str:
    """The record of `measure_infer` as text, a table for each batch and number of threads."""
    header = [
        "ms an image",
        *PARTS,
        "decode and NMS, %",
        "times faster",
        "network, ms per billion",
        "mAP",
    ]
    tables = []
    settings = dict.fromkeys((row["batch"], row["threads"]) for row in record["rows"])
    for batch, threads in settings:
        rows = [
            _cells(row)
            for row in record["rows"]
            if (row["batch"], row["threads"]) == (batch, threads)
        ]
        used = [any(column) for column in zip(*rows, strict=True)]
        shown = [[*compress(cells, used)] for cells in (header, *rows)]
        title = f"Batch {batch}, threads: {threads}"
        tables.append(f"{title}\n\n{text_table(shown[0], shown[1:], markdown)}")
    return "\n\n".join(tables)


def _cells(row: dict) -> list[str]:
    times = row["milliseconds"]
    whole, network, rest = (times.get(part) for part in PARTS)
    return [
        row["form"],
        spread(whole, 1) if whole else "",
        spread(network, 1),
        f"{rest['median']:.2f}" if rest else "",
        f"{100 * row['rest_share']:.0f}" if "rest_share" in row else "",
        spread(row["speedup"], 1) if "speedup" in row else "",
        f"{row['ms_per_billion']:.1f}" if "ms_per_billion" in row else "",
        f"{row['mAP']:.4f}" if "mAP" in row else "",
    ]


def infer_plot(record: dict[str, object]) -> str:
    """The smallest batch on the fewest cores, as SVG.

    Bars of the network's time and of all; below, the mAP of exported folders over their time.
    """
    threads = min(row["threads"] for row in record["rows"])
    batch = min(row["batch"] for row in record["rows"])
    asked = [row for row in record["rows"] if (row["batch"], row["threads"]) == (batch, threads)]
    rows = [row for row in asked if PARTS[0] in row["milliseconds"]]
    scored = [row for row in rows if "mAP" in row]
    words = f"milliseconds an image, batch {batch}, {threads} thread{'s' * (threads > 1)}"
    heights = [0.45 * len(rows) + 1] + [4 + len(scored) / 9] * bool(scored)

    def draw(axes) -> None:
        bars, *below = axes[:, 0]
        for part, height, index in (("end to end", 0.7, 6), ("network", 0.35, 1)):
            values = [row["milliseconds"][part]["median"] for row in rows]
            bars.barh(range(len(rows)), values, height, color=colour(index), label=part)
        bars.set_yticks(range(len(rows)), [row["form"] for row in rows])
        bars.invert_yaxis()
        bars.set_xlabel(words)
        bars.legend(loc="lower right")
        for points in below:
            for index, row in enumerate(scored):
                time, marker = row["milliseconds"]["end to end"], "osD^vPX"[index % 7]
                ends = [[time["median"] - time["low"]], [time["high"] - time["median"]]]
                style = {"fmt": marker, "color": colour(index), "elinewidth": 0.8}
                points.errorbar(time["median"], row["mAP"], xerr=ends, label=row["form"], **style)
            points.set_xlim(left=0)
            points.set_xlabel(f"{words}, end to end")
            points.set_ylabel("mAP")
            points.legend(loc="upper center", bbox_to_anchor=(0.3, -0.12), ncols=2)

    size = (8, sum(heights))
    return svg(draw, size, nrows=len(heights), height_ratios=heights, squeeze=False)
