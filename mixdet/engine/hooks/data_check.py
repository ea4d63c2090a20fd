"""The annotations are checked before every training run."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mixdet.errors import MixDetError


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Stop a training run that could teach nothing, and say in a line each what else is wrong.

    It reads the annotation files and lists the folders, but opens no image: that, and more
    examples, is what `tools/check_data.py` is for.
    """

    priority = "VERY_HIGH"

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Check the training and the validation data of the runner's config.

        Raises:
            MixDetError: Training, or its evaluation, would be meaningless.
        """
        from mixdet.data_check import quick_check  # which needs the engine

        problems = quick_check(runner.cfg)
        errors = [found for found in problems if found.level == "error"]
        if errors:
            more = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
            raise MixDetError(f"{errors[0].line()}{more}: tools/check_data.py shows all")
        for found in problems:
            if found.level == "warning":
                runner.logger.warning(found.line())
