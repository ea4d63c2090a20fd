"""Importing this module applies the fixes of `mixdet.compat`. Import it before mmdet.

The isort section `prepared` in pyproject.toml keeps this import above those of mmdet.
"""

from mixdet.compat import prepare

prepare()
