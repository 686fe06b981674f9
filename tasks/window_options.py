"""The options that all tasks on windows of a recurrent net have."""

from __future__ import annotations

from . import options
from .cells import CELLS


def add(
    made: options.Parser,
    *,
    window: int,
    updates: int,
    hidden: int,
    lr: float,
    synthesizer_hidden: int,
    factor: float,
    bound: float | None,
) -> None:
    """Add them to a parser.

    Args:
        made: The parser.
        window: Default of ``--window``, and so on.
        updates: Windows to learn from.
        hidden: Width of the recurrent layer.
        lr: The network's learning rate.
        synthesizer_hidden: Width of the synthesizers.
        factor: Share of the synthetic gradient.
        bound: Its length at most.
    """
    add = made.add_argument
    add("--window", type=options.number(int, 1), default=window, metavar="T",
        help="steps of a window (default: %(default)s)")  # fmt: skip
    add("--updates", type=options.number(int, 1), default=updates,
        help="windows to learn from (default: %(default)s)")  # fmt: skip
    add("--seconds", type=options.number(float, 0, above=True),
        help="learn for so long instead, in each mode and seed")  # fmt: skip
    add("--seed", type=options.seeds, default=[1], metavar="SEED,...", help="default: 1")
    add("--cell", choices=[*CELLS], default="lstm", help="default: %(default)s")
    add("--hidden", type=options.number(int, 1), default=hidden,
        help="width of the recurrent layer (default: %(default)s)")  # fmt: skip
    add("--batch", type=options.number(int, 2), default=32,
        help="sequences at a time (default: %(default)s)")  # fmt: skip
    add("--lr", type=options.number(float, 0, above=True), default=lr,
        help="the network's learning rate (default: %(default)s)")  # fmt: skip
    add("--clip", type=options.number(float, 0), default=1.0,
        help="norm that gradients are clipped to, 0 for none (default: %(default)s)")  # fmt: skip
    add("--grad-lr", type=options.number(float, 0, above=True), default=3e-3,
        help="the synthesizers' learning rate (default: %(default)s)")  # fmt: skip
    add("--synthesizer-hidden", type=options.number(int, 1), default=synthesizer_hidden,
        help="width of the synthesizers (default: %(default)s)")  # fmt: skip
    add("--factor", type=options.number(float, 0), default=factor,
        help="share of the synthetic gradient that is sent in (default: %(default)s)")  # fmt: skip
    add("--bound", type=options.number(float, 0, above=True), default=bound,
        help="its length at most, in those of true ones (default: %(default)s)")  # fmt: skip
