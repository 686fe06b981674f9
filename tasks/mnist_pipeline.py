"""MNIST task in several processes: each trains one part of the network, and does not wait."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed, Tensor
from torch.nn import functional as F

from pytorch_dni import (
    Linear_DNI,
    LocalError_DNI,
    LocalLoss_DNI,
)
from pytorch_dni.distributed import latest_checkpoint, split, Stage, TrainingReport

from . import files, options, ranks
from .errors import TaskError
from .image_task import add_image_options
from .mnist import CLASSES, LEARNING_RATE, MNISTTask, perceptron, PIXELS
from .task import step_seed

METRICS, NETWORK = "metrics.jsonl", "network.pt"
_SYNTHESIZERS = {"local": LocalLoss_DNI, "local-error": LocalError_DNI, "linear": Linear_DNI}


def parser() -> options.Parser:
    """Return a parser with the options of this program."""
    parser = options.Parser(prog="python -m tasks.mnist_pipeline", description=__doc__)
    parser.add_integer("--ranks", 2, "number of processes; torchrun sets its own number")
    parser.add_integer("--max-restarts", 0, "restarts after a failure", minimum=0)
    add_image_options(parser, "MNIST", "MNIST/")
    parser.add_argument(
        "--unlock",
        choices=["update", "full", "backward", "locked"],
        default="update",
        help="what parts wait for: activations, nothing (they learn from synthesised activations "
        "meanwhile), the error at the output, or the true gradient "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--synthesizer",
        choices=[*_SYNTHESIZERS],
        default="local",
        help="how gradients are predicted with --unlock update and full: by a local loss, by a "
        "matrix from the error of a local head, or by an MLP from activation and label (default: "
        "%(default)s)",
    )
    parser.add_integer("--hidden", 256, "width of the hidden layers")
    parser.add_integer("--depth", 3, "number of hidden layers")
    parser.add_integer("--batch", 256, "samples in a batch")
    parser.add_number("--lr", LEARNING_RATE, "learning rate")
    parser.add_integer("--max-in-flight", 2, "batches that a part may be ahead of the next one")
    parser.add_integer("--every", 100, "batches from one checkpoint to the next")
    parser.add_number("--timeout", 60.0, "seconds after which a silent rank counts as lost")
    parser.add_integer("--seed", 1, "seed of weights and data", minimum=0)
    parser.add_output_folder("checkpoints, metrics and the trained network")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.set_defaults(network="mlp", device=torch.device("cpu"))
    return parser


class PipelineRun:
    """One run: training with checkpoints, and evaluation after each epoch.

    Args:
        args: Options of the program.

    Raises:
        TaskError: The data cannot be read, or ``--out`` holds a run already.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args, self._rank = args, distributed.get_rank()
        self._parent = ranks.Parent()
        self._task: MNISTTask | None = None
        self._steps = self._shared_steps()
        self._epoch = self._steps // (args.epochs or 1)
        self._stage = self._build_stage()
        if args.out is not None and latest_checkpoint(args.out) is not None:
            # A restarted run resumes by itself.
            if not args.resume and not ranks.restarts():
                raise TaskError(f"--out {args.out} holds a run already: continue it with --resume")
            self._stage.load(args.out)

    def _shared_steps(self) -> int:
        """Load the data on the first rank; return the number of batches, on all ranks."""
        steps = torch.tensor([-1])
        try:
            if self._rank == 0:
                self._task = MNISTTask(self._args, self._args.depth)
                steps.fill_(self._task.default_steps)
        finally:
            distributed.broadcast(steps, 0)
        if steps < 0:
            sys.exit(2)  # The first rank has said why.
        return int(steps)

    def _build_stage(self) -> Stage:
        args = self._args
        torch.manual_seed(step_seed(args.seed, -1))
        network = perceptron(args.depth, args.hidden)
        example = torch.zeros(2, 1, *[math.isqrt(PIXELS)] * 2)
        parts = split(network, distributed.get_world_size(), example)
        part = parts[self._rank]
        predicts = args.unlock in ("update", "full")
        batch = None if self._task is None else self._task.training_batch(args.seed, 0)
        return Stage(
            part,
            torch.optim.Adam(part.parameters(), lr=args.lr),
            loss=F.cross_entropy,
            example=None if batch is None else (batch.input, batch.target),
            unlock=args.unlock,
            synthesizer=_SYNTHESIZERS[args.synthesizer] if predicts else None,
            context_size=CLASSES if predicts else None,
            max_in_flight=args.max_in_flight,
            name=[*dict(part.named_children())][-1],
            timeout=args.timeout,
        )

    def run(self) -> None:
        """Train, save and evaluate until the last epoch has ended."""
        stage = self._stage
        reports: list[TrainingReport] = []  # of this epoch
        while stage.batches < self._steps:
            reports.append(self._train_segment())
            if stage.batches % self._epoch == 0:
                self._report(reports)
                reports = []
            if self._args.out is not None:
                stage.save(self._args.out)
        state = stage.state_dict()
        if self._args.out is not None and self._rank == 0:
            with files.reporting_write_errors(self._args.out):
                files.save_checkpoint(self._args.out / NETWORK, state)
        stage.close()

    def _train_segment(self) -> TrainingReport:
        """Train until the next checkpoint, or the end of the epoch."""
        first, every = self._stage.batches, self._args.every
        left = [every - first % every, self._epoch - first % self._epoch, self._steps - first]
        count = min(left)
        batches = self._batches(first, count) if self._rank == 0 else None
        return self._stage.train(batches, limit=count, progress=sys.stderr.isatty())

    def _batches(self, first: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        assert self._task is not None
        for step in range(first, first + count):
            self._parent.check()
            batch = self._task.training_batch(self._args.seed, step)
            yield batch.input, batch.target

    def _report(self, reports: Sequence[TrainingReport]) -> None:
        """Evaluate, and print and save the figures of an epoch."""
        seconds = sum(report.seconds for report in reports)
        speed = sum(report.samples for report in reports) / seconds
        batches = sum(report.batches for report in reports)
        loss = sum(report.loss * report.batches for report in reports) / batches
        shares = zip(*(report.waiting for report in reports), strict=True)
        waiting = [sum(rank) / len(reports) for rank in shares]
        tests = None
        if self._task is not None:
            tests = [(batch.input, batch.target) for batch in self._task.test_batches()]
        accuracy = self._stage.evaluate(tests, _accuracy)
        if self._rank:
            return
        row = {
            "epoch": self._stage.batches // self._epoch,
            "batches": self._stage.batches,
            "training_loss": loss,
            "test_error": 1 - accuracy,
            "samples_per_second": speed,
            "waiting": waiting,
            "refused": [sum(rank) for rank in zip(*(r.refused for r in reports), strict=True)],
        }
        shown = ", ".join(f"{100 * share:.0f} %" for share in waiting)
        print(
            f"epoch {row['epoch']}: loss {loss:.4f}, test accuracy {100 * accuracy:.2f} %, "
            f"{speed:.0f} samples/s, waiting {shown}",
            flush=True,
        )
        if self._args.out is not None:
            _append(self._args.out / METRICS, row)


def _accuracy(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(1) == target).float().mean()


def _append(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a file of rows, in place of those of later batches, which a crash may leave."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    rows = [kept for kept in rows if kept["batches"] < row["batches"]] + [row]
    with files.reporting_write_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, "".join(json.dumps(r) + "\n" for r in rows).encode())


def _run_rank(args: argparse.Namespace) -> None:
    with ranks.process_group(args.timeout):
        PipelineRun(args).run()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    argv = [*sys.argv[1:]] if argv is None else [*argv]
    own = parser()
    args = own.parse_args(argv)
    if ranks.is_rank():
        return options.run_program(own, lambda: _run_rank(args))
    return ranks.launch("tasks.mnist_pipeline", args.ranks, args.max_restarts, argv)


if __name__ == "__main__":
    sys.exit(main())
