"""Docstrings as the site shows them: in Markdown."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

_ROLE = re.compile(r":(?:class|meth|func|data|mod|attr):`~?([^`]+)`")


class MarkdownDocstrings(Extension):
    """Writes roles of reStructuredText as code, and ``Example::`` as a paragraph."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Change the docstring of an object that has been read."""
        if obj.docstring is not None:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r"::\n\n", ":\n\n", text)
