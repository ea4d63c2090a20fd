"""The folders of mixdet import each other only in the order that docs/architecture.md lists."""

from __future__ import annotations

import ast

from tests.conftest import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text()
BLOCK = PAGE.partition("```layers\n")[2].partition("```")[0].strip()
LAYER = {name: line for line, names in enumerate(BLOCK.splitlines()) for name in names.split()}


def test_a_folder_imports_only_folders_that_the_page_lists_above_it():
    violations = []
    for file in sorted((ROOT / "mixdet").rglob("*.py")):
        folder = file.relative_to(ROOT / "mixdet").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):  # imports inside functions too
            names = [alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "name")]
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            for name in names:
                package, _, rest = name.partition(".")
                other = rest.partition(".")[0] or "__init__"
                outside = package == "mixdet" and other not in (folder, "__version__")
                if outside and LAYER[other] >= LAYER[folder]:
                    violations.append(f"{file.relative_to(ROOT)} imports {name}")
    assert not violations


def test_every_folder_has_a_line_in_architecture_md():
    folders = {file.name.removesuffix(".py") for file in (ROOT / "mixdet").glob("[!_.]*")}
    assert folders - {"py.typed"} == LAYER.keys() - {"__init__", "__main__"}


def test_no_module_has_the_name_of_a_public_function():
    files = [*(ROOT / "mixdet").rglob("*.py")]
    modules = {file.stem for file in files} | {file.parent.name for file in files}
    for file in files:
        body = ast.parse(file.read_text()).body
        functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
        assert not functions & modules, file
