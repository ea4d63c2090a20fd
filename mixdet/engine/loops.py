"""A training loop that can resume in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from mmdet.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import BatchSampler

from mixdet.datasets.samplers import SeededSampler
from mixdet.engine.batch_size import scale_lr_by_accumulated_batches
from mixdet.errors import MixDetError

# Key for the state of the current epoch in the message hub, which every checkpoint contains.
EPOCH_START = "epoch_begun"


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """mmengine's epoch loop, with two differences after a resume.

    - If the checkpoint was written within an epoch, the run continues with the next batch of that
      epoch. If the batch size or the number of GPUs has changed, the epoch starts over.
    - A checkpoint at the end of an epoch is written before the validation of that epoch. The
      resumed run therefore starts with this validation, if it is due.

    A run that was stopped and resumed therefore goes through the same states as a run that was
    never stopped.

    Raises:
        MixDetError: There is no batch, or the head and the data have different numbers of classes.
    """

    def __init__(self, runner: Runner, *args, **kwargs) -> None:
        runner.call_hook("before_train_data")  # DataCheckHook, before the data sets are built
        super().__init__(runner, *args, **kwargs)
        scale_lr_by_accumulated_batches(self.runner)
        self._check()  # before mmengine builds the schedules, which need the number of batches

    def run(self) -> torch.nn.Module:
        """Train to the last epoch and return the model."""
        self.runner.call_hook("before_train")
        if self._epoch and not self._epoch_start():
            self._validate_if_due()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            self._validate_if_due()
        self.runner.call_hook("after_train")
        return self.runner.model

    def _check(self) -> None:
        """Refuse data without a batch, and a head with another number of classes than the data."""
        dataset = self.dataloader.dataset
        if not len(self.dataloader):
            raise MixDetError(
                f"there is no batch to train on: the data set has {len(dataset)} images and "
                f"train_dataloader.batch_size is {self.dataloader.batch_size}: set a smaller "
                "batch_size"
            )
        head = getattr(self.runner.model, "bbox_head", None)
        num_classes = getattr(head, "num_classes", None)
        classes = len(getattr(dataset, "metainfo", {}).get("classes", ()))
        if num_classes is not None and classes and classes != num_classes:
            raise MixDetError(
                f"the training data have {classes} classes, but model.bbox_head.num_classes is "
                f"{num_classes}: set it to {classes}"
            )

    def run_epoch(self) -> None:
        """Train on the remaining batches of the epoch."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        batches_done = self._batches_done()
        start = {
            "epoch": self._epoch,
            "iter": self._iter - batches_done,
            "batches": self._batch_layout(),
        }
        self.runner.message_hub.update_info(EPOCH_START, start)
        for index, batch in enumerate(self._batches_from(batches_done), start=batches_done):
            self.run_iter(index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _epoch_start(self) -> dict | None:
        """Return the state at the start of the current epoch, or None between two epochs."""
        start = self.runner.message_hub.get_info(EPOCH_START)
        return start if start and start["epoch"] == self._epoch else None

    def _batch_layout(self) -> list[int | None]:
        """Return the numbers that, together with the seed, determine which samples a batch has."""
        size = getattr(self.dataloader.batch_sampler, "batch_size", None)
        return [len(self.dataloader), size, self.runner.world_size]

    def _batches_done(self) -> int:
        """Return how many batches of the current epoch were done before the checkpoint."""
        start = self._epoch_start()
        if start is None:
            return 0
        if start["batches"] != self._batch_layout():
            self.runner.logger.warning(
                f"Epoch {self._epoch + 1} starts over: the checkpoint was written within it, but "
                "the number of batches, the batch size or the number of GPUs has changed since"
            )
            return 0
        return self._iter - start["iter"]

    def _batches_from(self, first: int) -> Iterable[dict]:
        sampler, batch_sampler = self.dataloader.sampler, self.dataloader.batch_sampler
        if isinstance(sampler, SeededSampler) and type(batch_sampler) is BatchSampler:
            sampler.skip(first * self.dataloader.batch_size)
            return self.dataloader
        # Other samplers may have a state, so load the first batches and drop them. This is slower.
        return islice(self.dataloader, first, None)

    def _validate_if_due(self) -> None:
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        if self.runner.val_loop is not None and self._epoch >= self.val_begin and due:
            self.runner.val_loop.run()
