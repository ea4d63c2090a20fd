"""The fault: `SSDHead.predict` ends in "'SSDHead' object has no attribute 'loss_cls'".

In mmdet 3.3.0, the code that all dense heads share asks `self.loss_cls` for custom channels. An
SSDHead has no such attribute, since it calls cross entropy itself. The answer: an SSDHead that set
no `loss_cls` gets None. The attribute belongs to the instance: on the class it would hide the loss
modules of subclasses, because `nn.Module` looks for a module only where there is no attribute.

It can go when mmdet's SSDHead has the attribute.
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
