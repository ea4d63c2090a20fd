"""Detection heads that this package adds to mmdet."""

from .mixconv_ssd_head import MixConvSSDHead

__all__ = ["MixConvSSDHead"]
