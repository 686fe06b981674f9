"""A word language model on the Penn Treebank, learned on windows of T words."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from . import language


def _words(text: str) -> list[str]:
    return text.replace("\n", " <eos> ").split()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    return language.main(
        language.parser("word_language_model", __doc__, hidden=200), _words, " ", argv
    )


if __name__ == "__main__":
    sys.exit(main())
