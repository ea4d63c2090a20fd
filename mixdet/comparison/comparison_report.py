"""Write the report of a comparison: a Markdown file and an HTML page."""

from __future__ import annotations

import warnings
from pathlib import Path

from mixdet.comparison.comparison_folder import Comparison
from mixdet.comparison.report_markdown import report_as_markdown
from mixdet.comparison.report_page import draw_report_images, report_as_html
from mixdet.comparison.row_costs import (
    keep_matches,
    measure_intervals,
    measure_rows,
    validation_data,
)
from mixdet.config.read import load_config
from mixdet.errors import MixDetError
from mixdet.outputs import write_atomically


def write_report(comparison: Comparison, images: int = 6) -> str:
    """Write `report.md` and `report.html` into the folder of a comparison.

    The files `comparison.json`, `runs.jsonl`, `rows.json` and `matches.npz` are enough for the
    report. Only the images need the folder `runs/` and the data set. Finished rows that have not
    been measured yet are measured first, if `runs/` has their checkpoints. The report says what it
    leaves out.

    Args:
        comparison: The comparison.
        images: Number of validation images to show in the page.

    Returns:
        The report as Markdown.

    Raises:
        MixDetError: No run of the baseline is finished, or a file is damaged.
    """
    if not comparison.runs_of(comparison.plan.rows[0]):
        raise MixDetError(
            f"{comparison.folder}: no run of the baseline is finished yet: run the same command "
            "without --report"
        )
    image_urls: dict[str, list[str]] = {}
    left_out = "Images are left out (--images 0)." if not images else ""
    if not (comparison.folder / "runs").is_dir():
        reason = f"{comparison.folder} has no runs/"
        left_out = left_out or f"Images are left out: {reason}."
        if images:
            warnings.warn(f"{reason}: the report shows no images", stacklevel=2)
    else:
        try:
            keep_matches(comparison)
            measure_rows(comparison)
            if images:
                image_urls = _draw_images(comparison, images)
        except MixDetError as error:
            warnings.warn(f"the report is incomplete: {error}", stacklevel=2)
            left_out = left_out or f"Images are left out: {error}."
    measure_intervals(comparison)
    markdown = report_as_markdown(comparison)
    write_atomically(comparison.folder / "report.md", markdown.encode())
    title = f"{len(comparison.plan.rows)} detectors, {len(comparison.plan.seeds)} seeds"
    page = report_as_html(comparison, title, image_urls, left_out)
    write_atomically(comparison.folder / "report.html", page.encode())
    return markdown


def _draw_images(comparison: Comparison, count: int) -> dict[str, list[str]]:
    """Return validation images with boxes, by row, as data URLs."""
    plan = comparison.plan
    cfg = load_config(plan.configs[0], plan.cfg_options, data_root=plan.data_root)
    scored = validation_data(comparison)
    dataset = cfg.val_dataloader.dataset
    root = Path(dataset.get("data_root") or "", dataset.data_prefix.img)
    return draw_report_images(comparison, scored, str(root), count)
