"""Remove the folder names of this machine from the texts that an export writes."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

# A local file in a text: a URL such as file:///a/b, or an absolute path of at least two names, such
# as /a/b, ~/a/b, C:\a\b or \\host\a\b. Relative paths (a/b/c) and other URLs (https://a/b) do not
# match, since their slashes follow a letter or a scheme.
_LOCAL_FILE = re.compile(
    r"""(?:file|sqlite):[\\/]+[^\s'"<>|]+
    |(?:(?<![\w./\\~:-])(?:~[\w.-]*|[A-Za-z]:)?|(?<=:)(?=/[^/]))
     (?:[\\/]+[^\s'"<>|:;,()\[\]{}\\/]+){2,}[\\/]*""",
    re.VERBOSE,
)


def without_folders(value: Any) -> Any:
    """Replace each absolute path of a local file by its last name.

    Args:
        value: A text, or any nesting of dicts, lists and tuples that may hold texts. Other values
            are returned unchanged.
    """
    if isinstance(value, dict):
        return {without_folders(key): without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(without_folders(item) for item in value)
    if not isinstance(value, str):
        return value
    absolute = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
    if (absolute or value.startswith("~")) and "\n" not in value:
        return _last_name(value)
    return _LOCAL_FILE.sub(lambda match: _last_name(match.group()), value)


def _last_name(path: str) -> str:
    """Return the last name of a path, and the separator after it if there is one."""
    names = path.rstrip("\\/")
    return re.split(r"[\\/]", names)[-1] + path[len(names) : len(names) + 1]
