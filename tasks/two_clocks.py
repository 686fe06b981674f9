"""Two networks on two clocks: one ticks at every digit, the other at every T-th, and they talk.

The fast network counts the odd digits of the last T, the slow one the threes of the last T * T. At
the end of each T digits the fast network sends its state to the slow one, and gets the state that
the slow one had two ticks before. In modes dni and cdni no network waits for the gradient of its
messages, which interfaces predict (Jaderberg et al. 2017, section 3.2). In mode bp both are trained
end to end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import distributed, nn, Tensor
from torch.nn import functional as F

from . import clock_networks, options, ranks, threads
from .clock_networks import Fast, FastLearner, LocalMail, Mail, RankMail, Slow, SlowLearner
from .errors import TaskError
from .image_data import ImageSet
from .image_task import add_data_options, check_data_option
from .mnist import load_digits
from .progress import Progress
from .tables import format_table
from .task import step_generator, step_seed

MODES = {
    "bp": "backpropagation through both networks",
    "dni": "synthetic gradients of messages, predicted from the messages",
    "cdni": "the same, predicted from the message and the threes in the digits of its tick",
}
_TEST_BATCHES = 8


class Sequences(NamedTuple):
    """A batch of sequences of digits.

    Attributes:
        images: ``(T, T, batch, 1, 28, 28)``: ticks of the slow network, and those of the fast one.
        odd: Odd digits in each tick of the slow network, ``(T, batch)``.
        threes: Threes in each of them, ``(T, batch)``.
        all_threes: Threes in the whole sequence, ``(batch,)``.
    """

    images: Tensor
    odd: Tensor
    threes: Tensor
    all_threes: Tensor


class Digits:
    """Random sequences of digits.

    Args:
        digits: Images and labels.
        period: T.
        batch: Sequences in a batch.
    """

    def __init__(self, digits: ImageSet, period: int, batch: int) -> None:
        self._digits, self._shape = digits, (period, period, batch)

    def batch(self, seed: int, step: int) -> Sequences:
        """Return the batch of a step, which depends on the arguments alone."""
        random = step_generator(seed, step)
        chosen = torch.randint(len(self._digits.labels), self._shape, generator=random)
        labels = self._digits.labels[chosen]
        odd = (labels % 2 == 1).sum(1)
        threes = (labels == 3).sum(1)
        return Sequences(self._digits.images[chosen], odd, threes, threes.sum(0))


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    parser = options.Parser(prog="python -m tasks.two_clocks", description=__doc__)
    add_data_options(parser, "MNIST", "MNIST/")
    parser.add_modes(MODES)
    ranks_of_modes = "number of processes: 1, or 2 for one for each network (the last mode)"
    parser.add_integer("--ranks", 1, ranks_of_modes)
    parser.add_integer("--period", 4, "digits for each tick of the slow network", minimum=2)
    parser.add_steps(500)
    parser.add_training(batch=64, samples="sequences", lr=1e-3, whose="both networks", minimum=1)
    parser.add_integer("--hidden", 64, "width of both networks")
    parser.add_timeout()
    parser.add_seed()
    parser.add_threads("1 for small networks, and for --ranks 2, else one for each core")
    parser.set_defaults(device=torch.device("cpu"))
    return parser


def make_networks(args: argparse.Namespace) -> tuple[Fast, Slow]:
    """Return both networks with the random weights of a seed."""
    torch.manual_seed(step_seed(args.seed, -1))
    return Fast(args.period, args.hidden), Slow(args.period, args.hidden)


def train_end_to_end(args: argparse.Namespace, digits: Digits) -> tuple[Fast, Slow]:
    """Train both networks by backpropagation through all T * T digits."""
    fast, slow = make_networks(args)
    opt = torch.optim.Adam([*fast.parameters(), *slow.parameters()], lr=args.lr)
    with Progress(args.steps) as progress:
        progress.show("bp")
        for step in range(args.steps):
            batch = digits.batch(args.seed, step)
            counts, threes = clock_networks.run_both(fast, slow, batch.images)
            loss = F.cross_entropy(threes, batch.all_threes)
            loss = loss + sum(map(F.cross_entropy, counts, batch.odd))
            opt.zero_grad()
            loss.backward()
            opt.step()
            progress.advance(1)
    return fast, slow


def learners(
    args: argparse.Namespace, mode: str, mail: Mail, which: Sequence[int]
) -> Iterator[FastLearner | SlowLearner]:
    """Yield what trains a network, for those that this process has: 0 fast, 1 slow."""
    fast, slow = make_networks(args)
    # Random numbers of the synthesizers, the same in one process and in two.
    for number in (0, 1):
        torch.manual_seed(step_seed(args.seed, -2 - number))
        if number in which and number == 0:
            yield FastLearner(fast, mail, args.lr, args.period + 1 if mode == "cdni" else None)
        elif number in which:
            yield SlowLearner(slow, mail, args.lr)


def train_decoupled(
    args: argparse.Namespace, mode: str, digits: Digits, mail: Mail, which: Sequence[int]
) -> list[nn.Module]:
    """Train networks that exchange only messages; return those that this process has."""
    own = [*learners(args, mode, mail, which)]
    # Of two processes, one shows a bar, on a terminal.
    shown = 0 in which and (1 in which or sys.stderr.isatty())
    with Progress(args.steps) if shown else nullcontext() as progress:
        if progress is not None:
            progress.show(mode)
        for step in range(args.steps):
            _train_step(args, own, digits.batch(args.seed, step))
            if progress is not None:
                progress.advance(1)
    for learner in own:
        learner.finish()
    return [learner.network for learner in own]


def _train_step(
    args: argparse.Namespace, own: Sequence[FastLearner | SlowLearner], batch: Sequences
) -> None:
    """Train on a batch the networks that this process has."""
    for learner in own:
        learner.begin(args.batch)
    for tick in range(args.period):
        for learner in own:
            learner.tick(tick, batch.images[tick], batch.odd[tick], batch.threes[tick])
    for learner in own:
        learner.end(batch.all_threes)


def errors_on_test_digits(fast: Fast, slow: Slow, digits: Digits) -> tuple[float, float]:
    """Return the share of wrong counts of both networks on test sequences."""
    wrong = torch.zeros(2)
    with torch.no_grad():
        for number in range(_TEST_BATCHES):
            batch = digits.batch(0, -2 - number)
            counts, threes = clock_networks.run_both(fast, slow, batch.images)
            odd = torch.stack(counts).argmax(-1) != batch.odd
            wrong += torch.stack(
                [odd.float().mean(), (threes.argmax(-1) != batch.all_threes).float().mean()]
            )
    first, second = (wrong / _TEST_BATCHES).tolist()
    return first, second


def _digits(args: argparse.Namespace, train: bool) -> Digits:
    check_data_option(args, "MNIST")
    return Digits(load_digits(args, train), args.period, args.batch)


def _print(rows: Sequence[tuple[str, float, float]]) -> None:
    cells = [[mode, f"{100 * fast:.1f} %", f"{100 * slow:.1f} %"] for mode, fast, slow in rows]
    print(format_table([["mode", "error, fast", "error, slow"], *cells]), flush=True)


def _run_here(args: argparse.Namespace) -> None:
    training, test = _digits(args, True), _digits(args, False)
    images = training.batch(args.seed, 0).images[0, 0]
    threads.use(args.threads, make_networks(args)[0].look, images)
    rows = []
    for mode in args.mode:
        if mode == "bp":
            fast, slow = train_end_to_end(args, training)
        else:
            fast, slow = train_decoupled(args, mode, training, LocalMail(), [0, 1])  # type: ignore[assignment]
        rows.append((mode, *errors_on_test_digits(fast, slow, test)))
    _print(rows)


def _run_rank(args: argparse.Namespace) -> None:
    with ranks.process_group(args.timeout, args.threads):
        rank = distributed.get_rank()
        mail = RankMail(1 - rank, (args.batch, args.hidden), args.period)
        mode = args.mode[-1]
        (own,) = train_decoupled(args, mode, _digits(args, True), mail, [rank])
        mail.close()
        states = [None, None]
        distributed.all_gather_object(states, own.state_dict())
        if rank == 0:
            fast, slow = make_networks(args)
            fast.load_state_dict(states[0])
            slow.load_state_dict(states[1])
            _print([(mode, *errors_on_test_digits(fast, slow, _digits(args, False)))])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    argv = [*sys.argv[1:]] if argv is None else [*argv]
    own = parser()
    args = own.parse_args(argv)
    if ranks.is_rank():
        return options.run_program(own, lambda: _run_rank(args))
    if args.ranks == 1:
        return options.run_program(own, lambda: _run_here(args))

    def check() -> None:
        if args.ranks != 2:
            raise TaskError("--ranks must be 1 or 2: there are two networks")
        if args.mode[-1] == "bp":
            raise TaskError("--mode bp trains both networks in one process: take --ranks 1")

    options.run_program(own, check)
    return ranks.launch("tasks.two_clocks", 2, 0, argv)


if __name__ == "__main__":
    sys.exit(main())
