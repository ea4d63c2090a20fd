"""The one import that a config names: prepare mmdet for today's torch, then register everything."""

from mixdet import compat

compat.prepare()

import mixdet.datasets.collate  # noqa: E402
import mixdet.datasets.digit_scenes_dataset  # noqa: E402
import mixdet.datasets.safe_coco  # noqa: E402
import mixdet.datasets.samplers  # noqa: E402
import mixdet.datasets.transforms  # noqa: E402
import mixdet.engine  # noqa: E402
import mixdet.evaluation  # noqa: E402
import mixdet.models  # noqa: E402, F401
