"""Hooks of MkDocs for `make docs`.

The hooks add pages that are not in docs/: README.md as the first page, every file that a page links
to, and the API reference. In the Markdown files, links lead to files of the repository, as on
GitHub. The hooks replace these links by links to pages of the site.
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
# Matches a whole code block, or the target of a link as group 1. Links in code are thus left out.
LINK = re.compile(r"^```.*?^```|(?<=\]\()([^)#\s]+)", flags=re.S | re.M)
REPOSITORY_PATHS: dict[str, str] = {}  # {page in the site: file outside docs/ that it shows}


def site_path(path: str) -> str:
    """Map the path of a file or folder in the repository to its path in the site."""
    if path in FIRST_PAGES:
        return "index.md" if path == "README.md" else path
    in_docs = path.startswith("docs/")
    page = path.removeprefix("docs/") if in_docs else f"source/{path}"
    if (ROOT / path).is_dir():
        readme = (ROOT / path / "README.md").is_file()
        return f"{page}/README.md" if readme else f"{page}/index.md"
    # MkDocs writes report.html for report.md. HTML files therefore go to another folder.
    if path.endswith(".html"):
        return f"files/{page}"
    return page if in_docs or path.endswith(".md") else f"{page}.md"


def repository_path(target: str, page: str) -> str | None:
    """Return the file or folder of the repository that a link in `page` leads to, or None."""
    path = os.path.normpath(PurePosixPath(page).parent / target).replace(os.sep, "/")
    in_repository = "://" not in target and not path.startswith("..")
    return path if in_repository and (ROOT / path).exists() else None


def linked_paths(path: str) -> list[str]:
    """Return the files and folders that a page, or the listing of a folder, links to."""
    if (ROOT / path).is_dir() and not site_path(path).endswith("README.md"):
        return sorted(f"{path}/{file.name}" for file in (ROOT / path).iterdir() if file.is_file())
    if not path.endswith(".md"):
        return []
    links = LINK.findall((ROOT / path).read_text(encoding="utf-8"))
    return list(filter(None, (repository_path(link, path) for link in links if link)))


def generated_page(path: str) -> str:
    """Return Markdown that lists the files of a folder, or shows the text of a file."""
    if (ROOT / path).is_dir():
        lines = [f"- [{name}]({name})" for name in map(os.path.basename, linked_paths(path))]
        return "\n".join([f"# {path}", "", *lines, ""])
    text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
    return f"# {path}\n\n````{Path(path).suffix[1:]}\n{text}\n````\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the first pages, the files that a page links to, and the API reference."""
    paths = [*FIRST_PAGES, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    for path in paths:  # the list grows in the loop
        paths += [target for target in dict.fromkeys(linked_paths(path)) if target not in paths]
    for path in paths:
        uri = site_path(path)
        if files.get_file_from_path(uri):
            continue
        if path.endswith((".md", ".html")):
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
        else:
            files.append(File.generated(config, uri, content=generated_page(path)))
        REPOSITORY_PATHS[uri] = f"{path}/index.md" if (ROOT / path).is_dir() else path
    reference = api_reference()
    for uri, content in reference.items():
        files.append(File.generated(config, uri, content=content))
    config.nav.append({"API reference": [{Path(uri).stem: uri} for uri in reference]})
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Replace links to files of the repository by links to their pages."""
    uri = page.file.src_uri
    source = REPOSITORY_PATHS.get(uri, f"docs/{uri}")

    def replace(match: re.Match) -> str:
        path = match[1] and repository_path(match[1], source)
        return os.path.relpath(site_path(path), PurePosixPath(uri).parent) if path else match[0]

    return LINK.sub(replace, markdown)


def api_reference() -> dict[str, str]:
    """Return the Markdown of a page for each package in mixdet, by the path of the page.

    A page lists the names in the `__all__` of its modules. A name that several modules export is
    listed only under the outermost module. The modules are parsed, not imported.
    """
    pages: dict[str, list[str]] = {}
    listed: set[str] = set()
    root = griffe.load("mixdet", search_paths=[ROOT])
    for package in sorted(exporting_modules(root), key=lambda package: package.path.count(".")):
        definitions = {name: package[name].canonical_path for name in package.exports}
        names = [name for name, path in definitions.items() if path not in listed]
        listed.update(definitions.values())
        top = ".".join(package.path.split(".")[:2])
        page = pages.setdefault(f"api/{top}.md", [f"# {top}"])
        if package.path != top and names:
            page.append(f"## {package.path}")
        if package.docstring and names:
            page.append(package.docstring.value)
        page += [f"::: {package.path}.{name}" for name in names]
    return {uri: "\n\n".join(pages[uri]) for uri in sorted(pages)}


def exporting_modules(module: griffe.Module) -> Iterator[griffe.Module]:
    """Yield the packages and modules inside a module that have an `__all__`."""
    for member in module.modules.values():
        if not member.is_alias:
            if member.exports:
                yield member
            yield from exporting_modules(member)
