"""The fault: `SSDHead.predict` ends in "'SSDHead' object has no attribute 'loss_cls'".

mmdet 3.3.0: the code that all dense heads share asks `self.loss_cls` for custom channels, and
SSDHead calls cross entropy by itself and has no such attribute. The answer: None, for an SSDHead
that set nothing. An attribute of the class would do for SSDHead and hide the loss module of its
subclasses, since modules are found only where ordinary attributes are not.

It can go when an SSDHead of mmdet's own has the attribute.
"""

from __future__ import annotations

from functools import wraps


def install() -> None:
    """Give instances of SSDHead the attribute that their base class reads."""
    from mmdet.models.dense_heads import SSDHead

    original = SSDHead.__init__
    if getattr(original, "sets_loss_cls", False):
        return

    @wraps(original)
    def __init__(self: SSDHead, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)
        if not hasattr(self, "loss_cls"):
            self.loss_cls = None

    __init__.sets_loss_cls = True
    SSDHead.__init__ = __init__
