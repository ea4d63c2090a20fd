"""Rewrite a network for inference: fewer and cheaper operations give the same outputs."""

from mixdet.models.fusing.forms import FUSED_FORMS, FusedForm
from mixdet.models.fusing.network import fuse

__all__ = ["FUSED_FORMS", "FusedForm", "fuse"]
