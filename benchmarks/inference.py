"""`infer`: time all forms of a detector from images to boxes, each form in its own process.

A form is a way to run a detector, such as compiled, or exported to a runtime.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path

from benchmarks.inference_forms import (
    DECODE_AND_NMS,
    END_TO_END,
    EXPORTED_FORMS,
    INFERENCE_FORMS,
    MATRIX_PRODUCT,
    NETWORK,
    OURS_INT8,
    PEER,
    start_form,
)
from benchmarks.processes import RemoteFunction, remote_function, time_remote_in_turns
from benchmarks.timing import format_range, median_and_range, speedup
from mixdet.errors import MixDetError
from mixdet.inference.manifest import read_manifest
from mixdet.inference.runtimes import INT8_PACKAGES, RUNTIME_FILES, RUNTIME_PACKAGES
from mixdet.machine import machine_record
from mixdet.visual.svg import figure_to_svg, series_color
from mixdet.visual.tables import text_table

PARTS = (END_TO_END, NETWORK, DECODE_AND_NMS)


def measure(
    rounds: int = 5,
    network: str = "MixNet-M",
    batches: Sequence[int] = (1, 8),
    threads: Sequence[int] = (1, 2),
    folders: Sequence[str] = (),
    without: Sequence[str] = (),
) -> dict[str, object]:
    """Time detection on images of 640 x 480, in total and by part. The score threshold is 0.05.

    Forms are left out if their runtime or compiler is not installed. Weights are random. The random
    weights of MixDet and its peer give scores like a trained detector's. Torchvision's scores are
    so low that its NMS has no work. INT8 is calibrated on noise. Only the results of `folders` have
    an mAP, since only these folders hold trained detectors.

    Args:
        rounds: Number of timed rounds. Batches of one image get four times as many rounds.
        network: A key of `benchmarks.networks.NETWORKS`.
        batches: Batch sizes. Exported files of kind raw compute the images of a batch one by one,
            or eight together on OpenVINO.
        threads: Numbers of threads. Each process is limited to that number of cores.
        folders: Exported folders that are timed too. Each is timed on every installed runtime for
            which it has a file.
        without: Forms with one of these words in their name are left out. For example, 'compiled'
            leaves out the form that takes minutes to compile.

    Returns:
        machine, settings and rows. The rows have milliseconds per image of each part, and the mAP
        that the manifest of an exported folder states.

    Raises:
        MixDetError: A folder is not an exported folder of kind raw, or the network is unknown.
    """
    from benchmarks.inference_files import SIZE, TEST_CFG, write_files  # slow: torch and mmdet
    from benchmarks.networks import NETWORKS, check_known

    check_known("--network", [network], NETWORKS)
    exported_rows = _exported_rows(folders)
    measured_on = machine_record()
    forms = [
        form
        for form in INFERENCE_FORMS
        if _is_installed(form) and not any(word in form for word in without)
    ]
    exports: dict[str, set[str]] = {}
    for name, runtime in (EXPORTED_FORMS[form] for form in forms if form in EXPORTED_FORMS):
        exports.setdefault(name, set()).add(runtime)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        madds = write_files(network, Path(folder), exports)
        row_starts = {form: {"form": form} for form in forms} | exported_rows
        for number in threads:
            with contextlib.ExitStack() as stack:
                functions = {
                    form: stack.enter_context(
                        remote_function(start_form, form, folder, number, network)
                    )
                    for form in row_starts
                }
                for batch in batches:
                    rows += _measure_batch(functions, row_starts, batch, number, rounds, madds)
    settings = {"network": network, "size": SIZE, "rounds": rounds}
    settings["score_thr"] = TEST_CFG["score_thr"]
    return {"kind": "infer", "machine": measured_on, "settings": settings, "rows": rows}


def _is_installed(form: str) -> bool:
    """Return whether the runtime or the compiler of a form is installed."""
    if "compiled" in form:
        return shutil.which("g++") is not None
    folder, runtime = EXPORTED_FORMS.get(form, (None, None))
    packages = [RUNTIME_PACKAGES[runtime]] if runtime else []
    if folder == OURS_INT8:
        packages += INT8_PACKAGES
    return all(importlib.util.find_spec(name) is not None for name in packages)


def _exported_rows(folders: Sequence[str]) -> dict[tuple[str, str], dict[str, object]]:
    """Return the name and mAP of each exported file, by folder and runtime.

    Raises:
        MixDetError: A folder is not an exported folder of kind raw.
    """
    rows = {}
    paths = [Path(folder).resolve() for folder in folders]
    names = [path.name for path in paths]
    for path in paths:
        name = path.name if names.count(path.name) == 1 else path
        manifest = read_manifest(path)
        if manifest["kind"] != "raw":
            raise MixDetError(
                f"--folders {path}: an export of kind {manifest['kind']} includes decoding and "
                "NMS, which are timed separately: export with --kind raw"
            )
        for runtime, (file, *_) in RUNTIME_FILES.items():
            if file in manifest["files"] and importlib.util.find_spec(RUNTIME_PACKAGES[runtime]):
                row = {"form": f"{name}, {runtime}"}
                if measured := manifest.get("measured", {}).get(runtime):
                    row["mAP"] = measured["mAP"]
                rows[str(path), runtime] = row
    return rows


def _measure_batch(
    functions: Mapping[object, RemoteFunction],
    row_starts: Mapping[object, dict],
    batch: int,
    threads: int,
    rounds: int,
    madds: Mapping[str, int],
) -> list[dict[str, object]]:
    """Time all parts of all forms in turns, and return a row per form."""
    tasks = {
        (form, part): (function, (part, batch))
        for part in PARTS
        for form, function in functions.items()
        if form != MATRIX_PRODUCT or part == NETWORK
    }
    rounds *= 4 if batch == 1 else 1
    seconds = time_remote_in_turns(tasks, rounds, threads, warm=True)
    rows = []
    for form in functions:
        times = {
            part: median_and_range([1000 * value / batch for value in seconds[form, part]])
            for part in PARTS
            if (form, part) in seconds
        }
        row = {**row_starts[form], "batch": batch, "threads": threads, "milliseconds": times}
        if form in INFERENCE_FORMS:
            row["ms_per_billion"] = times[NETWORK]["median"] / _madds_of(form, madds) * 1e9
        if form != MATRIX_PRODUCT:
            row["rest_share"] = times[DECODE_AND_NMS]["median"] / times[END_TO_END]["median"]
        # Exported folders of the user get no speedup, since the peer may have another network.
        if form in INFERENCE_FORMS and form != MATRIX_PRODUCT and PEER in functions:
            row["speedup"] = speedup(seconds[PEER, END_TO_END], seconds[form, END_TO_END])
        rows.append(row)
    return rows


def _madds_of(form: str, madds: Mapping[str, int]) -> int:
    """Return the multiply-adds of a form. MixDet and the peer have the same number."""
    matches = (count for start, count in madds.items() if form.startswith(start))
    return next(matches, madds["MixDet"])


def table(record: dict[str, object], markdown: bool = False) -> str:
    """Lay out the record of `measure` as text: a table per batch size and number of threads."""
    header = ["ms per image", *PARTS, "decode and NMS, %", "times faster"]
    header += ["network, ms per billion", "mAP"]
    tables = []
    settings = dict.fromkeys((row["batch"], row["threads"]) for row in record["rows"])
    for batch, threads in settings:
        rows = [
            _cells(row)
            for row in record["rows"]
            if (row["batch"], row["threads"]) == (batch, threads)
        ]
        used = [any(column) for column in zip(*rows, strict=True)]
        shown_header, *shown_rows = ([*compress(cells, used)] for cells in (header, *rows))
        title = f"Batch {batch}, threads: {threads}"
        tables.append(f"{title}\n\n{text_table(shown_header, shown_rows, markdown)}")
    return "\n\n".join(tables)


def _cells(row: dict) -> list[str]:
    times = row["milliseconds"]
    end_to_end, network, decode_and_nms = (times.get(part) for part in PARTS)
    return [
        row["form"],
        format_range(end_to_end, 1) if end_to_end else "",
        format_range(network, 1),
        f"{decode_and_nms['median']:.2f}" if decode_and_nms else "",
        f"{100 * row['rest_share']:.0f}" if "rest_share" in row else "",
        format_range(row["speedup"], 1) if "speedup" in row else "",
        f"{row['ms_per_billion']:.1f}" if "ms_per_billion" in row else "",
        f"{row['mAP']:.4f}" if "mAP" in row else "",
    ]


def page_table(record: dict[str, object]) -> str:
    """Lay out the median end-to-end times of all settings as one Markdown table."""
    rows = [row for row in record["rows"] if END_TO_END in row["milliseconds"]]
    settings = list(dict.fromkeys((row["batch"], row["threads"]) for row in rows))
    cells: dict[str, dict[tuple, str]] = {}
    scores = {}
    for row in rows:
        ratio = f" ({row['speedup']['median']:.1f})" if "speedup" in row else ""
        text = f"{row['milliseconds'][END_TO_END]['median']:.1f}{ratio}"
        cells.setdefault(row["form"], {})[row["batch"], row["threads"]] = text
        scores[row["form"]] = f"{row['mAP']:.4f}" if "mAP" in row else ""
    has_ratios = any("speedup" in row for row in rows)
    header = ["ms per image (times faster)" if has_ratios else "ms per image"]
    header += [f"batch {batch}, threads {threads}" for batch, threads in settings]
    table_rows = [[form, *map(by_setting.get, settings)] for form, by_setting in cells.items()]
    if any(scores.values()):
        header.append("mAP")
        table_rows = [[*row, scores[row[0]]] for row in table_rows]
    return text_table(header, table_rows, markdown=True)


def plot(record: dict[str, object]) -> str:
    """Draw the results for the smallest batch on the fewest threads as SVG.

    Bars show the time of the network and the end-to-end time. Below the bars, points show the mAP
    of exported folders over their end-to-end time.
    """
    threads = min(row["threads"] for row in record["rows"])
    batch = min(row["batch"] for row in record["rows"])
    rows = [
        row
        for row in record["rows"]
        if (row["batch"], row["threads"]) == (batch, threads) and END_TO_END in row["milliseconds"]
    ]
    scored_rows = [row for row in rows if "mAP" in row]
    label = f"milliseconds per image, batch {batch}, {threads} thread{'s' * (threads > 1)}"
    heights = [0.45 * len(rows) + 1] + [4 + len(scored_rows) / 9] * bool(scored_rows)

    def draw(axes) -> None:
        bars, *scatter_axes = axes[:, 0]
        for part, height, index in ((END_TO_END, 0.7, 6), (NETWORK, 0.35, 1)):
            values = [row["milliseconds"][part]["median"] for row in rows]
            bars.barh(range(len(rows)), values, height, color=series_color(index), label=part)
        bars.set_yticks(range(len(rows)), [row["form"] for row in rows])
        bars.invert_yaxis()
        bars.set_xlabel(label)
        bars.legend(loc="lower right")
        for points in scatter_axes:
            for index, row in enumerate(scored_rows):
                time, marker = row["milliseconds"][END_TO_END], "osD^vPX"[index % 7]
                ends = [[time["median"] - time["low"]], [time["high"] - time["median"]]]
                style = {"fmt": marker, "color": series_color(index), "elinewidth": 0.8}
                points.errorbar(time["median"], row["mAP"], xerr=ends, label=row["form"], **style)
            points.set_xlim(left=0)
            points.set_xlabel(f"{label}, end to end")
            points.set_ylabel("mAP")
            points.legend(loc="upper center", bbox_to_anchor=(0.3, -0.12), ncols=2)

    size = (8, sum(heights))
    return figure_to_svg(draw, size, nrows=len(heights), height_ratios=heights, squeeze=False)
