"""The command `mixdet` (or `python -m mixdet`), which runs the tools without a checkout."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import sys
from pathlib import Path

from mixdet import __version__
from mixdet.config.shipped import config_names, shipped_folder
from mixdet.errors import MixDetError, run_tool


def main() -> None:
    """Run the tool that the command line names, as if its script had been called.

    The command `configs` is not a tool. It lists the shipped configs, or copies them to a folder.
    """
    run_tool(lambda: _run(*sys.argv[1:]))


def _run(command: str = "--help", *arguments: str) -> int | None:
    tools = {file.stem: file for file in sorted(shipped_folder("tools").glob("*.py"))}
    if command in ("-h", "--help"):
        print(_usage(tools))
    elif command in ("-V", "--version"):
        print(f"mixdet {__version__}")
    elif command == "configs":
        _list_or_copy_configs(*arguments[:1])
    elif command in tools:
        sys.argv = [f"mixdet {command}", *arguments]
        spec = importlib.util.spec_from_file_location(command, tools[command])
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        return tool.main()
    else:
        raise MixDetError(f"mixdet {command}: no such command; see `mixdet --help` for the list")
    return None


def _usage(tools: dict[str, Path]) -> str:
    lines = ["usage: mixdet COMMAND [arguments]; `mixdet COMMAND --help` lists the arguments", ""]
    for name, file in tools.items():
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        summary = docstring.splitlines()[0].partition(":")[0].rstrip(".")
        lines.append(f"  {name:<18}{summary}")
    lines.append(f"  {'configs':<18}List the shipped configs; `configs FOLDER` copies them there")
    return "\n".join(lines)


def _list_or_copy_configs(folder: str | None = None) -> None:
    if folder is None:
        print("\n".join(config_names()))
        return
    try:
        shutil.copytree(
            shipped_folder("configs"), folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    except OSError as error:
        raise MixDetError(
            f"mixdet configs {folder}: {error.strerror or error}: name a new folder"
        ) from error


if __name__ == "__main__":
    main()
