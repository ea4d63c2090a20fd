"""Write a comparison's report: Markdown, and one HTML page."""

from __future__ import annotations

import warnings
from pathlib import Path

from mmengine.config import Config

from mixdet.comparison.costs import measure
from mixdet.comparison.folder import Comparison
from mixdet.comparison.markdown import to_markdown
from mixdet.comparison.page import draw_images, to_html
from mixdet.config.read import load_config
from mixdet.errors import MixDetError
from mixdet.outputs import write_atomically

TIMED_IMAGES = 8


def report(comparison: Comparison, images: int = 6) -> str:
    """Write `report.md` and `report.html`; returns the Markdown.

    Costs are measured where the folder does not hold them for every row yet.

    Args:
        comparison: Read from its folder.
        images: Validation images to show side by side.

    Raises:
        MixDetError: No run is finished, or a file is missing that a measurement needs.
    """
    if not comparison.runs_of(comparison.plan.rows[0]):
        raise MixDetError(f"{comparison.folder}: no run of the baseline is finished yet")
    drawn = {}
    if (comparison.folder / "runs").is_dir():
        ann_file, image_root, files = _validation(comparison)
        finished = all(comparison.runs_of(row) for row in comparison.plan.rows)
        if finished and comparison.rows.keys() != set(comparison.plan.rows):
            measure(comparison, files, ann_file)
        drawn = draw_images(comparison, ann_file, image_root, images)
    elif images:
        warnings.warn(
            f"{comparison.folder} has no runs/: the report is without images", stacklevel=2
        )
    text = to_markdown(comparison)
    write_atomically(comparison.folder / "report.md", text.encode())
    title = f"{len(comparison.plan.rows)} detectors, {len(comparison.plan.seeds)} seeds"
    page = to_html(comparison, title, drawn)
    write_atomically(comparison.folder / "report.html", page.encode())
    return text


def _validation(comparison: Comparison) -> tuple[str, str, list[Path]]:
    """Annotation file, folder of the images, and some images of the validation set."""
    plan = comparison.plan
    cfg: Config = load_config(plan.configs[0], plan.cfg_options, data_root=plan.data_root)
    dataset = cfg.val_dataloader.dataset
    root = Path(dataset.get("data_root") or "", dataset.data_prefix.img)
    files = sorted(path for path in root.iterdir() if path.is_file())[:TIMED_IMAGES]
    return cfg.val_evaluator.ann_file, str(root), files
