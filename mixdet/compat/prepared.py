"""`import mixdet.compat.prepared` prepares mmdet; it stands above every import of mmdet.

The project's isort section `prepared` (pyproject.toml) keeps it there.
"""

from mixdet.compat import prepare

prepare()
