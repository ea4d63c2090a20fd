"""Write the report of a comparison: a Markdown file and an HTML page."""

from __future__ import annotations

import warnings
from pathlib import Path

from mixdet.comparison.comparison_folder import Comparison
from mixdet.comparison.report_markdown import report_as_markdown
from mixdet.comparison.report_page import draw_report_images, report_as_html
from mixdet.comparison.row_costs import measure_rows
from mixdet.config.read import load_config
from mixdet.deploy.labeled_images import load_labeled_images
from mixdet.errors import MixDetError
from mixdet.evaluation import ScoredData
from mixdet.outputs import write_atomically

LATENCY_IMAGES = 8


def write_report(comparison: Comparison, images: int = 6) -> str:
    """Write `report.md` and `report.html` into the folder of a comparison.

    Rows (configs of the comparison) that have not been measured yet are measured first. The
    measurement needs the folder `runs/` with a finished run of each row.

    Args:
        comparison: The comparison.
        images: Number of validation images to show.

    Returns:
        The report as Markdown.

    Raises:
        MixDetError: No run of the baseline is finished, or a file is missing.
    """
    if not comparison.runs_of(comparison.plan.rows[0]):
        raise MixDetError(
            f"{comparison.folder}: no run of the baseline is finished yet: run the same command "
            "without --report"
        )
    image_urls = {}
    if (comparison.folder / "runs").is_dir():
        scored, image_root, latency_images = _validation_data(comparison)
        finished = all(comparison.runs_of(row) for row in comparison.plan.rows)
        if finished and comparison.rows.keys() != set(comparison.plan.rows):
            measure_rows(comparison, latency_images, scored)
        image_urls = draw_report_images(comparison, scored, image_root, images)
    elif images:
        warnings.warn(f"{comparison.folder} has no runs/: the report shows no images", stacklevel=2)
    markdown = report_as_markdown(comparison)
    write_atomically(comparison.folder / "report.md", markdown.encode())
    title = f"{len(comparison.plan.rows)} detectors, {len(comparison.plan.seeds)} seeds"
    page = report_as_html(comparison, title, image_urls)
    write_atomically(comparison.folder / "report.html", page.encode())
    return markdown


def _validation_data(comparison: Comparison) -> tuple[ScoredData, str, list[str]]:
    """Return the annotations of the validation set, its image folder and some of its images."""
    plan = comparison.plan
    cfg = load_config(plan.configs[0], plan.cfg_options, data_root=plan.data_root)
    images = load_labeled_images(cfg, "val_dataloader")
    scored = ScoredData(images.annotations, images.category_ids, images.image_ids)
    dataset = cfg.val_dataloader.dataset
    root = Path(dataset.get("data_root") or "", dataset.data_prefix.img)
    return scored, str(root), images.files[:LATENCY_IMAGES]
