"""The only import that a config needs: it prepares mmdet and registers all classes of MixDet."""

import mixdet.compat.prepared

import mixdet.datasets
import mixdet.engine
import mixdet.evaluation
import mixdet.models
