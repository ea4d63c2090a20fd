"""The new names of modules and functions that have moved.

A config or a script that imports an old name gets a one-line error that states the new name.
"""

from __future__ import annotations

from mixdet.errors import MixDetError

# Each old name with its new name. The entry of a package also holds for its submodules.
MOVED = {
    "mixdet.shipped": "mixdet.config.shipped",
    "mixdet.engine.config": "mixdet.config.read",
    "mixdet.engine.plain_config": "mixdet.config.plain",
    "mixdet.engine.data_paths": "mixdet.config.data_paths",
    "mixdet.engine.launch": "mixdet.launch",
    "mixdet.engine.trained": "mixdet.inference.trained",
    "mixdet.engine.hooks.checkpoint": "mixdet.engine.hooks.checkpoint_hook",
    "mixdet.engine.hooks.cuda_graph": "mixdet.engine.hooks.cuda_graph_hook",
    "mixdet.engine.hooks.data_check": "mixdet.engine.hooks.data_check_hook",
    "mixdet.engine.hooks.early_stopping": "mixdet.engine.hooks.early_stopping_hook",
    "mixdet.engine.hooks.finite": "mixdet.engine.hooks.finite_loss_hook",
    "mixdet.engine.hooks.fit": "mixdet.engine.hooks.checkpoint_fit_hook",
    "mixdet.engine.hooks.fuse": "mixdet.engine.hooks.fuse_hook",
    "mixdet.engine.hooks.interrupt": "mixdet.engine.hooks.interrupt_hook",
    "mixdet.engine.hooks.memory": "mixdet.engine.hooks.keep_memory_hook",
    "mixdet.engine.hooks.report": "mixdet.engine.hooks.report_hook",
    "mixdet.engine.hooks.seed": "mixdet.engine.hooks.seed_iteration_hook",
    "mixdet.engine.hooks.total_batch": "mixdet.engine.hooks.total_batch_hook",
    "mixdet.inference.as_rgb": "mixdet.images.as_rgb",
    "mixdet.deploy.exported": "mixdet.inference.exported",
    "mixdet.deploy.runtimes": "mixdet.inference.runtimes",
    "mixdet.deploy.pictures": "mixdet.deploy.labeled_images",
    "mixdet.deploy.quantise": "mixdet.deploy.quantization",
    "mixdet.deploy.fuse": "mixdet.deploy (from mixdet.deploy import fuse)",
    "mixdet.deploy.branches": "mixdet.models.fusing.blocks",
    "mixdet.deploy.parts": "mixdet.models.fusing.parts",
    "mixdet.models.dense_heads.suppress": "mixdet.models.dense_heads.ssd_post_processing",
    "mixdet.models.layers.shortcut": "mixdet.models.layers.fast_path",
    "mixdet.deploy.export": "mixdet.deploy.exporter",
    "mixdet.deploy.half": "mixdet.deploy.half_precision",
    "mixdet.deploy.network": "mixdet.deploy.raw_network",
    "mixdet.deploy.readme": "mixdet.deploy.folder_readme",
    "mixdet.deploy.targets": "mixdet.deploy.export_targets",
    "mixdet.deploy.verify": "mixdet.deploy.verification",
    "mixdet.datasets.pictures": "mixdet.images",
    "mixdet.datasets.digit_drawing": "mixdet.digit_scenes.drawing",
    "mixdet.datasets.digit_scenes_dataset": "mixdet.datasets.digit_scenes",
    "mixdet.models.data_preprocessors": "mixdet.datasets.data_preprocessor",
    "mixdet.analysis.ablation": "mixdet.comparison.ablation",
    "mixdet.analysis.benchmark.peers": "mixdet.models.backbones.timm_features",
    "mixdet.analysis.benchmark": "benchmarks (a folder of the repository, not of the package)",
    "mixdet.analysis.comparison": "mixdet.comparison",
    "mixdet.analysis.comparison.costs": "mixdet.comparison.row_costs",
    "mixdet.analysis.comparison.figures": "mixdet.comparison.report_figures",
    "mixdet.analysis.comparison.folder": "mixdet.comparison.comparison_folder",
    "mixdet.analysis.comparison.markdown": "mixdet.comparison.report_markdown",
    "mixdet.analysis.comparison.page": "mixdet.comparison.report_page",
    "mixdet.analysis.comparison.report": "mixdet.comparison.comparison_report",
    "mixdet.analysis.comparison.runs": "mixdet.comparison.training_runs",
    "mixdet.analysis.comparison.statistics": "mixdet.comparison.score_intervals",
    "mixdet.analysis.comparison.summary": "mixdet.comparison.row_summary",
    "mixdet.analysis.comparison.worker": "mixdet.comparison.run_worker",
    "mixdet.analysis.data_check": "mixdet.data_check",
    "mixdet.analysis.data_check.anchors": "mixdet.data_check.anchor_fit",
    "mixdet.analysis.data_check.boxes": "mixdet.data_check.box_checks",
    "mixdet.analysis.data_check.check": "mixdet.data_check.check_config_data",
    "mixdet.analysis.data_check.entries": "mixdet.data_check.annotation_checks",
    "mixdet.analysis.data_check.files": "mixdet.data_check.image_file_checks",
    "mixdet.analysis.data_check.page": "mixdet.data_check.data_page",
    "mixdet.analysis.data_check.problems": "mixdet.data_check.data_problems",
    "mixdet.analysis.data_check.report": "mixdet.data_check.data_report",
    "mixdet.analysis.data_check.splits": "mixdet.data_check.data_splits",
    "mixdet.analysis.drawing": "mixdet.visual.boxes",
    "mixdet.analysis.machine": "mixdet.machine",
    "mixdet.analysis.pictures": "mixdet.visual.contact_sheet",
    "mixdet.analysis.plots": "mixdet.visual.svg",
    "mixdet.analysis.predict": "mixdet.inference.predict",
    "mixdet.analysis.tables": "mixdet.visual.tables",
}


class MovedError(MixDetError, ImportError):
    """The error that an import of an old name raises."""


class MovedFinder:
    """An import finder that finds no module, but raises an error for the old names.

    It stands at the end of `sys.meta_path`, so Python asks it for every module that no other finder
    knows. `from PACKAGE import NAME` asks for the module PACKAGE.NAME if the package has no
    attribute NAME.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Refuse an old name.

        Raises:
            MovedError: The name is old.
        """
        refuse_moved(name)


def refuse_moved(name: str) -> None:
    """Raise an error if a name is old or lies inside an old package.

    Raises:
        MovedError: The name is old. The message names the new one.
    """
    matches = [old for old in MOVED if f"{name}.".startswith(f"{old}.")]
    if matches:
        old = max(matches, key=len)
        raise MovedError(f"{old} has moved: import {MOVED[old]}", name=name)
