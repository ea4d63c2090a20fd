"""Give mmdet's SSDHead the attribute `loss_cls`, which `SSDHead.predict` reads.

The fault: `SSDHead.predict` fails with "'SSDHead' object has no attribute 'loss_cls'". In mmdet
3.3.0, the base class of all dense heads reads `self.loss_cls` to find out whether the loss has
custom channels. SSDHead does not have this attribute, since it calls cross entropy itself.

The fix: an SSDHead without `loss_cls` gets `loss_cls = None`. The attribute is set on the instance.
A class attribute would hide the loss module `loss_cls` of a subclass, because `nn.Module` looks for
a submodule only if there is no other attribute of that name.

This module can be removed when mmdet's SSDHead has the attribute.
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
