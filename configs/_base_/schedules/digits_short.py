"""The digit recipe cut to 3 epochs, 750 iterations: short enough for many runs on a CPU."""

_base_ = "digits.py"

train_cfg = dict(max_epochs=3, val_interval=1)
