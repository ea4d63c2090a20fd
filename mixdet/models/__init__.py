"""The public parts of a MixNet/MixConv detector; importing this registers them with mmdet."""

from mixdet.compat import prepare

prepare()  # mmdet's models cannot be imported before

from .backbones import MixMobileNetV1, MixMobileNetV2, MixNet  # noqa: E402
from .data_preprocessors import BatchedDetDataPreprocessor  # noqa: E402
from .dense_heads import MixConvSSDHead  # noqa: E402
from .detectors import SSDLite  # noqa: E402
from .layers import MixConv2d, split_channels  # noqa: E402
from .task_modules import TFSSDAnchorGenerator  # noqa: E402
from .weight_init import TimmPretrained  # noqa: E402

__all__ = [
    "BatchedDetDataPreprocessor",
    "MixConv2d",
    "MixConvSSDHead",
    "MixMobileNetV1",
    "MixMobileNetV2",
    "MixNet",
    "SSDLite",
    "TFSSDAnchorGenerator",
    "TimmPretrained",
    "split_channels",
]
