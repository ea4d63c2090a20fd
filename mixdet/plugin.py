"""The only import that a config needs: it applies the fixes to mmdet and registers our classes."""

import mixdet.compat.prepared

import mixdet.datasets
import mixdet.engine
import mixdet.evaluation
import mixdet.models
