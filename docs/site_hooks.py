"""Hooks of MkDocs for `make docs`.

They add to the pages of docs/ what lies outside: README.md as the first page, every file that a
page links to, and the API reference. Links are written as GitHub follows them, relative to the
file that they stand in; here they are turned to the pages of the site.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
FIRST_PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
LINK = re.compile(r"^```.*?^```|(?<=\]\()([^)#\s]+)", flags=re.S | re.M)  # not inside code
REPOSITORY_PATHS: dict[str, str] = {}  # of pages that are made of files outside docs/


def site_path(path: str) -> str:
    """Where the site has a file or folder of the repository, both as relative POSIX paths."""
    if path == "README.md":
        return "index.md"
    inside = path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        readme = (ROOT / path / "README.md").is_file()
        return f"{inside}/README.md" if readme else f"{inside}/index.md"
    if path.endswith(".html"):  # the page of a report.md is called report.html
        return f"files/{inside}"
    return inside if inside != path or path.endswith(".md") else f"source/{path}.md"


def repository_path(target: str, page: str) -> str | None:
    """The file or folder that a link in `page` names; None for an address or a missing file."""
    path = os.path.normpath(PurePosixPath(page).parent / target).replace(os.sep, "/")
    known = "://" not in target and not path.startswith("..") and (ROOT / path).exists()
    return path if known else None


def linked(path: str) -> list[str]:
    """Files and folders of the repository that a page, or the list of a folder, links to."""
    if (ROOT / path).is_dir() and not site_path(path).endswith("README.md"):
        return sorted(f"{path}/{file.name}" for file in (ROOT / path).iterdir() if file.is_file())
    if not path.endswith(".md"):
        return []
    links = LINK.findall((ROOT / path).read_text(encoding="utf-8"))
    return list(filter(None, (repository_path(link, path) for link in links if link)))


def text_of(path: str) -> str:
    """The page for a folder or for a file that is no document: its files, or its text."""
    if (ROOT / path).is_dir():
        lines = [f"- [{name}]({name})" for name in map(os.path.basename, linked(path))]
        return "\n".join([f"# {path}", "", *lines, ""])
    text = (ROOT / path).read_text(encoding="utf-8")
    return f"# {path}\n\n````{Path(path).suffix[1:]}\n{text}\n````\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of files outside docs/, and the API reference."""
    paths = [*FIRST_PAGES, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    for path in paths:  # which grows
        paths += [other for other in dict.fromkeys(linked(path)) if other not in paths]
    for path in paths:
        uri = site_path(path)
        if files.get_file_from_path(uri):
            continue
        if path.endswith((".md", ".html")):
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
        else:
            files.append(File.generated(config, uri, content=text_of(path)))
        folder = (ROOT / path).is_dir()
        REPOSITORY_PATHS[uri] = f"{path}/index.md" if folder else path
    reference = api_reference()
    for uri, content in reference.items():
        files.append(File.generated(config, uri, content=content))
    config.nav.append({"API reference": [{Path(uri).stem: uri} for uri in reference]})
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links to files of the repository to their pages."""
    uri = page.file.src_uri
    here = REPOSITORY_PATHS.get(uri, f"docs/{uri}")

    def turned(match: re.Match) -> str:
        path = match[1] and repository_path(match[1], here)
        return os.path.relpath(site_path(path), PurePosixPath(uri).parent) if path else match[0]

    return LINK.sub(turned, markdown)


def api_reference() -> dict[str, str]:
    """Pages with the names in `__all__`, by their path: one page for each package of mixdet.

    A name that several packages export stands under the first of them, the one nearest the top. The
    packages are read, not imported.
    """
    root = griffe.load("mixdet", search_paths=[ROOT])
    pages: dict[str, str] = {}
    written: set[str] = set()
    for package in sorted(exporting(root), key=lambda package: package.path.count(".")):
        top = ".".join(package.path.split(".")[:2])
        names = [name for name in package.exports if real_path(package, name) not in written]
        written |= {real_path(package, name) for name in names}
        if not names:
            continue
        docstring = package.docstring.value if package.docstring else ""
        title = f"#{'#' * (package.path != top)} {package.path}"
        blocks = [f"::: {package.path}.{name}" for name in names]
        uri = f"api/{top}.md"
        pages[uri] = "\n\n".join([*pages.get(uri, "").split("\n\n"), title, docstring, *blocks])
    return dict(sorted(pages.items()))


def exporting(module: griffe.Module) -> Iterator[griffe.Module]:
    """The packages inside a module that have an `__all__`."""
    for member in module.modules.values():
        if not member.is_alias:
            if member.is_init_module and member.exports:
                yield member
            yield from exporting(member)


def real_path(package: griffe.Module, name: str) -> str:
    """Where the object that a package exports is defined."""
    return package[name].canonical_path
