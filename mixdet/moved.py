"""The new names of modules and functions that have moved.

A config or a script that imports an old name gets an error of one line with the new name.
"""

from __future__ import annotations

from mixdet.errors import MixDetError

# Each old name with its new one. An old package stands for its submodules too.
MOVED = {
    "mixdet.shipped": "mixdet.config.shipped",
    "mixdet.engine.config": "mixdet.config.read",
    "mixdet.engine.plain_config": "mixdet.config.plain",
    "mixdet.engine.data_paths": "mixdet.config.data_paths",
    "mixdet.engine.launch": "mixdet.launch",
    "mixdet.engine.trained": "mixdet.inference.trained",
    "mixdet.inference.as_rgb": "mixdet.images.as_rgb",
    "mixdet.deploy.exported": "mixdet.inference.exported",
    "mixdet.deploy.runtimes": "mixdet.inference.runtimes",
    "mixdet.deploy.pictures": "mixdet.deploy.labeled_images",
    "mixdet.deploy.quantise": "mixdet.deploy.quantization",
    "mixdet.deploy.branches": "mixdet.models.fusing.blocks",
    "mixdet.deploy.parts": "mixdet.models.fusing.parts",
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
    "mixdet.analysis.benchmark": "benchmarks (a folder of the repository, not of the package)",
    "mixdet.analysis.comparison": "mixdet.comparison",
    "mixdet.analysis.data_check": "mixdet.data_check",
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
    """A finder for the end of `sys.meta_path`. It finds no module, and refuses the old names.

    Python asks it for every module that no other finder knows. `from PACKAGE import NAME` asks for
    the module PACKAGE.NAME if the package has no attribute NAME.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Refuse an old name.

        Raises:
            MovedError: The name is old.
        """
        refuse_moved(name)


def refuse_moved(name: str) -> None:
    """Refuse an old name, and the names inside an old package.

    Raises:
        MovedError: The name is old. The message names the new one.
    """
    for old, new in MOVED.items():
        if name == old or name.startswith(f"{old}."):
            raise MovedError(f"{old} has moved: import {new}", name=name)
