"""What a program says before it trains."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def announce(
    args: argparse.Namespace,
    modes: Sequence[str],
    parameters: int,
    threads: int,
    length: str,
    done: int = 0,
) -> str:
    """Return what will be trained, as text.

    Args:
        args: Options of the program.
        modes: Names of the modes; each has a network of its own for each seed.
        parameters: Number of parameters of a network.
        threads: Number of threads on the CPU.
        length: How long the training is.
        done: Steps that an earlier run has trained already.
    """
    seeds = args.seed if isinstance(args.seed, list) else [args.seed]
    networks = len(modes) * len(seeds)
    where = f"the CPU, {threads} thread{'s' if threads > 1 else ''}"
    if args.device.type != "cpu":
        where = str(args.device)
    begin = f"goes on from step {done}" if done else "trains"
    return (
        f"{args.task} {begin} {length}: {networks} network{'s' if networks > 1 else ''} of "
        f"{parameters:,} parameters in turn, with batches of {args.batch}, on {where}\n"
        f"modes: {', '.join(modes)}; seeds: {', '.join(map(str, seeds))}"
    )
