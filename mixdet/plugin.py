"""The one import that a config names: prepare mmdet for today's torch, register everything."""

import mixdet.compat.prepared

import mixdet.datasets
import mixdet.engine
import mixdet.evaluation
import mixdet.models
