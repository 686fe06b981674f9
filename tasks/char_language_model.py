"""A character language model on the Penn Treebank, learned on windows of T characters."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from . import language, options


def parser() -> options.Parser:
    """The options."""
    return language.parser("char_language_model", __doc__ or "", hidden=256)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    return language.main(parser(), list, "", argv)


if __name__ == "__main__":
    sys.exit(main())
