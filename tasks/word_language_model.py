"""A word language model on the Penn Treebank, trained on windows of T words."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from . import language_training, options


def split_into_words(text: str) -> list[str]:
    """Split a text at spaces; the end of a line is a word of its own."""
    return text.replace("\n", " <eos> ").split()


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    return language_training.language_parser("word_language_model", __doc__, hidden=200)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return language_training.run(parser(), split_into_words, " ", argv)


if __name__ == "__main__":
    sys.exit(main())
