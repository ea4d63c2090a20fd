"""The recipe for own data: AdamW with a learning rate of 0.003 for a batch of 8, on a cosine.

It is the digit recipe with half its learning rate, since a training starts from the start weights.
"""

_base_ = "digits.py"

optim_wrapper = dict(optimizer=dict(lr=0.003))
