"""Makes pages of the site from guides and from files of the repository.

MkDocs calls these functions, see `hooks` in mkdocs.yml. A guide is a Python
file in Jupytext's percent format: its Markdown cells are the text, and the
others are shown as code.
"""

import posixpath
import re
from pathlib import Path

import jupytext
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "changes.md": "CHANGELOG.md",
}
_LINK = re.compile(r"(!?)\[([^\]]+)\]\(([^)#:]+)(#[^)]*)?\)")


def page_of(path):
    """Returns the Markdown of a guide.

    Args:
        path: Path of its Python file.
    """
    cells = jupytext.read(path, fmt="py:percent").cells
    return "\n\n".join(
        cell.source
        if cell.cell_type == "markdown"
        else f"```python\n{cell.source}\n```"
        for cell in cells
    )


def on_config(config):
    """Names the pages of guides in the navigation."""
    config.nav = _renamed(config.nav)
    return config


def on_files(files, config):
    """Adds the pages that are made here."""
    for file in list(files):
        if file.src_uri.startswith("guides/") and file.src_uri.endswith(".py"):
            files.remove(file)
            _add(files, config, _page(file.src_uri), page_of(file.abs_src_path))
    for page, source in PAGES.items():
        _add(files, config, page, (ROOT / source).read_text("utf-8"))
    for picture in ROOT.glob("benchmarks/results/**/*.png"):
        _copy(files, config, picture)
    for picture in ROOT.glob("savedmodels/*.png"):
        _copy(files, config, picture)
    return files


def on_page_markdown(markdown, page, config, files):
    """Points links at pages, and names files that are not part of the site."""
    here = page.file.src_uri
    source = PAGES.get(here, f"docs/{here}")

    def link(match):
        picture, text, target, anchor = match.groups()
        path = posixpath.normpath(
            posixpath.join(posixpath.dirname(source), target)
        )
        for found, name in PAGES.items():
            if path == name:
                path = found
        path = _page(path.removeprefix("docs/"))
        if path not in files.src_uris:
            return f"{text} (`{path}`)"
        path = posixpath.relpath(path, posixpath.dirname(here) or ".")
        return f"{picture}[{text}]({path}{anchor or ''})"

    return _LINK.sub(link, markdown)


def _renamed(node):
    if isinstance(node, list):
        return [_renamed(part) for part in node]
    if isinstance(node, dict):
        return {name: _renamed(part) for name, part in node.items()}
    return _page(node)


def _page(source):
    """Returns the page of a guide, and any other path as it is."""
    return re.sub(r"^(guides/\w+)\.py$", r"\1.md", source)


def _add(files, config, page, text):
    files.append(File.generated(config, page, content=text))


def _copy(files, config, path):
    name = path.relative_to(ROOT).as_posix()
    files.append(File.generated(config, name, abs_src_path=str(path)))
