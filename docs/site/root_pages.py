"""Pages of the site that are files in the root of the repository.

The links of all pages are those of the repository. On the site, links to the README and to other
pages of the root lead to the pages made here, and links to code become text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parents[2]
_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LONG_CODE = re.compile(r"(?<=<code>)[^<]{30,}(?=</code>)")
_END_OF_WORD = re.compile(r"(::|/|_)")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)((?:#[^)]*)?)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the root."""
    for name, page in _PAGES.items():
        text = (_ROOT / name).read_text()
        files.append(File.generated(config, page, content=_with_links_of_the_site(text, "", page)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Change the links of the pages of ``docs/``."""
    source = page.file.src_uri
    if source in _PAGES.values():
        return markdown
    return _with_links_of_the_site(
        markdown, posixpath.join("docs", posixpath.dirname(source)), source
    )


def _with_links_of_the_site(text: str, folder: str, page: str) -> str:
    """Return a text whose links lead to pages of the site.

    Args:
        text: The text, with links that start at a folder of the repository.
        folder: That folder.
        page: The page of the site on which the text is shown.
    """

    def link(match: re.Match[str]) -> str:
        mark, label, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        if path in _PAGES:
            path = _PAGES[path]
        elif path.startswith("docs/"):
            path = path.removeprefix("docs/")
        else:
            return label  # code, which the site does not show
        return f"{mark}[{label}]({posixpath.relpath(path, posixpath.dirname(page) or '.')}{anchor})"

    return _LINK.sub(link, text)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Let long names in code be broken after ``::``, ``/`` and ``_``, so that tables fit."""
    return _LONG_CODE.sub(lambda code: _END_OF_WORD.sub(r"\1<wbr>", code.group()), html)
