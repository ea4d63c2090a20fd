"""Choose batch size and number of epochs for a number of training images."""

from __future__ import annotations

from dataclasses import dataclass

from mixdet.errors import MixDetError

BATCH = 8  # the batch size that the learning rate of configs/_base_/own_data.py is meant for
EPOCHS = 100
MIN_ITERATIONS, MAX_ITERATIONS = 3_000, 12_000
MIN_EPOCHS = 12
VALIDATIONS = 10


@dataclass(frozen=True)
class TrainingPlan:
    """How long to train.

    Attributes:
        batch_size: Number of images in a batch.
        max_epochs: Number of epochs.
        val_interval: Number of epochs from one validation to the next.
        iterations: Number of iterations of the whole training.
    """

    batch_size: int
    max_epochs: int
    val_interval: int
    iterations: int


def plan_training(images: int) -> TrainingPlan:
    """Choose batch size and epochs for a training from scratch.

    A training has 100 epochs, but at least 3,000 and at most 12,000 iterations: a detector from
    scratch takes thousands of them, and more take longer than a working day on two cores. It has at
    least 12 epochs, since a large data set is meant for a GPU. These numbers were not tuned.

    Args:
        images: Number of training images.

    Raises:
        MixDetError: There are fewer than two images. Batch norm needs two in a batch.
    """
    if images < 2:
        raise MixDetError(f"{images} training image: batch norm needs at least 2: add images")
    batch = min(BATCH, images)
    per_epoch = images // batch
    iterations = min(max(EPOCHS * per_epoch, MIN_ITERATIONS), MAX_ITERATIONS)
    epochs = max(round(iterations / per_epoch), MIN_EPOCHS)
    return TrainingPlan(batch, epochs, max(1, epochs // VALIDATIONS), epochs * per_epoch)
