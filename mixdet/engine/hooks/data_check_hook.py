"""Check the annotations before every training run."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mixdet.data_check import quick_check
from mixdet.errors import MixDetError


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Stop a training run whose data are unusable, and log the warnings about its data.

    The hook reads the annotation files and lists the image folders, but opens no image.
    `tools/check_data.py` opens the images too, and shows examples.
    """

    priority = "VERY_HIGH"

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Check the training and the validation data of the runner's config.

        Raises:
            MixDetError: The check finds a problem of the level "error".
        """
        problems = quick_check(runner.cfg)
        errors = [problem for problem in problems if problem.level == "error"]
        if errors:
            more = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
            raise MixDetError(f"{errors[0].line()}{more}: tools/check_data.py shows all problems")
        for problem in problems:
            if problem.level == "warning":
                runner.logger.warning(problem.line())
