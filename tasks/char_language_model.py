"""A character language model on the Penn Treebank, learned on windows of T characters."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from . import language


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    return language.main(
        language.parser("char_language_model", __doc__, hidden=256), list, "", argv
    )


if __name__ == "__main__":
    sys.exit(main())
