"""The digit recipe for 3 epochs (750 iterations in all), which allows many runs on a CPU."""

_base_ = "digits.py"

train_cfg = dict(max_epochs=3, val_interval=1)
