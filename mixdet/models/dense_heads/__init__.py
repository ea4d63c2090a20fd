"""Detection heads that this package adds to mmdet."""

from mixdet.models.dense_heads.mixconv_ssd_head import MixConvSSDHead

__all__ = ["MixConvSSDHead"]
