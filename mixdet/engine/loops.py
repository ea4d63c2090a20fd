"""A training loop that can begin in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from mmdet.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import BatchSampler

from mixdet.datasets.samplers import SeededSampler
from mixdet.errors import MixDetError

BEGUN = "epoch_begun"  # in the message hub, which every checkpoint holds


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """mmengine's epoch loop, with two differences after a resume.

    - From a checkpoint written within an epoch, that epoch goes on at its next batch. After a
      change of the batch size or of the number of GPUs it starts over.
    - From a checkpoint written at an epoch's end, that epoch is validated first where it is due:
      the checkpoint was written before the validation, so its result is not in it.

    So a run that was stopped and resumed goes through the same states as one that was not.

    Raises:
        MixDetError: There is no batch, or head and data differ in their number of classes.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._check()  # here, before a schedule is laid over no batches

    def run(self) -> torch.nn.Module:
        """Train to the last epoch and return the model."""
        self.runner.call_hook("before_train")
        if self._epoch and not self._begun():
            self._validate_if_due()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            self._validate_if_due()
        self.runner.call_hook("after_train")
        return self.runner.model

    def _check(self) -> None:
        """Refuse what would train nothing, or fail in the middle of the first epoch."""
        dataset = self.dataloader.dataset
        if not len(self.dataloader):
            raise MixDetError(
                f"no batch to train on: {len(dataset)} images, batches of "
                f"{self.dataloader.batch_size}: make train_dataloader.batch_size smaller"
            )
        head = getattr(self.runner.model, "bbox_head", None)
        outputs = getattr(head, "num_classes", None)
        classes = len(getattr(dataset, "metainfo", {}).get("classes", ()))
        if outputs is not None and classes and classes != outputs:
            raise MixDetError(
                f"the training data have {classes} classes and model.bbox_head.num_classes is "
                f"{outputs}: make it {classes}"
            )

    def run_epoch(self) -> None:
        """Train on what is left of the epoch."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        done = self._batches_done()
        begun = {"epoch": self._epoch, "iter": self._iter - done, "batches": self._batches()}
        self.runner.message_hub.update_info(BEGUN, begun)
        for index, batch in enumerate(self._batches_from(done), start=done):
            self.run_iter(index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _begun(self) -> dict | None:
        """What was noted when the current epoch began; None between two epochs."""
        begun = self.runner.message_hub.get_info(BEGUN)
        return begun if begun and begun["epoch"] == self._epoch else None

    def _batches(self) -> list[int | None]:
        """What decides which samples a batch holds, apart from the seed."""
        size = getattr(self.dataloader.batch_sampler, "batch_size", None)
        return [len(self.dataloader), size, self.runner.world_size]

    def _batches_done(self) -> int:
        """Batches of the current epoch that the checkpoint has behind it."""
        begun = self._begun()
        if begun is None:
            return 0
        if begun["batches"] != self._batches():
            self.runner.logger.warning(
                f"Epoch {self._epoch + 1} starts over: the checkpoint was written within it, with "
                "other batches (their number, their size or the number of GPUs)"
            )
            return 0
        return self._iter - begun["iter"]

    def _batches_from(self, first: int) -> Iterable[dict]:
        sampler, batch_sampler = self.dataloader.sampler, self.dataloader.batch_sampler
        if isinstance(sampler, SeededSampler) and type(batch_sampler) is BatchSampler:
            sampler.skip(first * self.dataloader.batch_size)
            return self.dataloader
        # Other (batch) samplers keep state of their own: exact too, but reads what it drops.
        return islice(self.dataloader, first, None)

    def _validate_if_due(self) -> None:
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        if self.runner.val_loop is not None and self._epoch >= self.val_begin and due:
            self.runner.val_loop.run()
