"""Prepare mmdet on import: `import mixdet.compat.prepared` stands above every import of mmdet.

The isort section `prepared` in pyproject.toml keeps it there.
"""

from mixdet.compat import prepare

prepare()
