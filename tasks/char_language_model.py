"""A character language model on the Penn Treebank, trained on windows of T characters."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from . import language_training, options


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    return language_training.language_parser("char_language_model", __doc__, hidden=256)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return language_training.run(parser(), list, "", argv)


if __name__ == "__main__":
    sys.exit(main())
