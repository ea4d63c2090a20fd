"""Networks rewritten for inference: the same outputs from fewer and cheaper operations."""

from mixdet.models.fusing.forms import FUSED_FORMS, FusedForm
from mixdet.models.fusing.network import fuse

__all__ = ["FUSED_FORMS", "FusedForm", "fuse"]
