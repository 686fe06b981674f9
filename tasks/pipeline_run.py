"""Training of a network in several processes, with checkpoints, figures and restarts."""

from __future__ import annotations

import argparse
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn, Tensor
from tqdm import tqdm

from pytorch_dni.distributed import latest_checkpoint, Stage, TrainingReport

from . import files, options, ranks, resuming
from .errors import TaskError
from .progress import Progress
from .task import step_seed, Task

METRICS, NETWORK = "metrics.jsonl", "network.pt"


def add_pipeline_options(
    parser: options.Parser, *, batch: int, lr: float, unlocks: Sequence[str]
) -> None:
    """Add the options that all such programs share.

    Args:
        parser: The parser.
        batch: Default of ``--batch``.
        lr: Default of ``--lr``.
        unlocks: Choices of ``--unlock``; the first one is the default.
    """
    text = "number of processes; torchrun sets its own number"
    parser.add_integer("--ranks", 2, text, maximum=1024)
    parser.add_integer("--max-restarts", 0, "restarts after a failure", minimum=0)
    parser.add_argument(
        "--unlock",
        choices=unlocks,
        default=unlocks[0],
        help="what parts wait for; update: activations; full: nothing, they learn from synthesised "
        "activations meanwhile; backward: the error at the output; locked: the true gradient "
        "(default: %(default)s)",
    )
    parser.add_training(batch=batch, samples="samples", lr=lr, whose="the network", minimum=1)
    parser.add_integer("--max-in-flight", 2, "batches that a part may be ahead of the next one")
    parser.add_integer("--every", 100, "training steps between checkpoints")
    parser.add_timeout()
    parser.add_seed()
    parser.add_threads("OMP_NUM_THREADS, or 1 in each process")
    parser.add_output_folder("checkpoints, metrics and the trained network")
    parser.add_resume()
    parser.set_defaults(device=torch.device("cpu"))


class PipelineRun(ABC):
    """One run: training with checkpoints, and an evaluation from time to time.

    Args:
        args: Options of the program.

    Attributes:
        args: The options.
        task: The data, on the first rank.
        context_size: Number of classes.
        part: The part of this rank.
        stage: Trains it.

    Raises:
        TaskError: The data cannot be read, or ``--out`` holds a run already.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self._rank = args, distributed.get_rank()
        self._progress: Progress | None = None
        self._parent = ranks.Parent()
        self.task: Task | None = None
        self._steps, self._round, self.context_size = self._shared()
        torch.manual_seed(step_seed(args.seed, -1))
        self.part = self.build_parts(distributed.get_world_size())[self._rank]
        self.stage = self._build_stage()
        if args.out is not None and latest_checkpoint(args.out) is not None:
            # A restarted run resumes by itself.
            if not args.resume and not ranks.restarts():
                raise TaskError(f"--out {args.out} holds a run already: continue it with --resume")
            self.stage.load(args.out)

    @classmethod
    def check(cls, args: argparse.Namespace) -> None:
        """Check options before processes are started: a network of these sizes can be built.

        Raises:
            TaskError: They contradict each other.
        """
        resuming.check_lengths(args)
        cls.build_network(args, 2)

    @staticmethod
    @abstractmethod
    def build_network(args: argparse.Namespace, classes: int) -> nn.Module:
        """Return the whole network."""

    @abstractmethod
    def load_task(self) -> Task:
        """Return the data, on the first rank."""

    @abstractmethod
    def steps(self, task: Task) -> tuple[int, int]:
        """Return the number of all batches, and of those between two evaluations."""

    def segment_steps(self) -> int:
        """Return how many batches are trained on at once, before :meth:`after_segment`."""
        every: int = self.args.every
        return every

    @abstractmethod
    def build_parts(self, count: int) -> list[nn.Module]:
        """Return the parts of the network; random numbers are seeded."""

    @abstractmethod
    def stage_options(self) -> dict[str, Any]:
        """Return options of :class:`Stage` for this part: at least the loss and its synthesizer."""

    @abstractmethod
    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the figure of an evaluation, a mean over samples."""

    @abstractmethod
    def describe(self, value: float) -> str:
        """Return what is printed of that figure."""

    def after_segment(self) -> None:  # noqa: B027 - most programs do nothing then
        """Do what belongs between two segments, on all ranks."""

    def _shared(self) -> tuple[int, int, int]:
        """Load the data on the first rank; return the figures of it that all ranks need."""
        shared = torch.tensor([-1, -1, -1])
        try:
            if self._rank == 0:
                self.task = self.load_task()
                shared = torch.tensor([*self.steps(self.task), self.task.context_size])
        finally:
            distributed.broadcast(shared, 0)
        steps, in_round, context_size = shared.tolist()
        if steps < 0:
            sys.exit(2)  # The first rank has said why.
        return steps, in_round, context_size

    def _build_stage(self) -> Stage:
        args = self.args
        batch = None if self.task is None else self.task.training_batch(args.seed, 0)
        return Stage(
            self.part,
            torch.optim.Adam(self.part.parameters(), lr=args.lr),
            example=None if batch is None else (batch.input, batch.target),
            unlock=args.unlock,
            max_in_flight=args.max_in_flight,
            timeout=args.timeout,
            **self.stage_options(),
        )

    def run(self) -> None:
        """Train, save and evaluate until the last batch."""
        stage = self.stage
        if self._rank == 0 and sys.stderr.isatty():
            self._progress = Progress(self._steps, stage.batches, epochs=self._epochs())
        with self._progress or nullcontext():
            self._train()
        state = stage.state_dict()
        if self.args.out is not None and self._rank == 0:
            with files.reporting_write_errors(self.args.out):
                files.save_checkpoint(self.args.out / NETWORK, state)
        stage.close()

    def _train(self) -> None:
        stage = self.stage
        reports: list[TrainingReport] = []  # of this round
        while stage.batches < self._steps:
            reports.append(self._train_segment())
            self.after_segment()
            ends = stage.batches % self._round == 0 or stage.batches == self._steps
            if ends:
                self._report(reports)
                reports = []
            if self.args.out is not None and (ends or stage.batches % self.args.every == 0):
                stage.save(self.args.out)

    def _epochs(self) -> int | None:
        epochs: int | None = getattr(self.args, "epochs", None)
        return epochs

    def _train_segment(self) -> TrainingReport:
        """Train until the next checkpoint, or the end of the round."""
        first = self.stage.batches
        lengths = self.segment_steps(), self.args.every, self._round
        count = min(self._steps - first, *(length - first % length for length in lengths))
        batches = self._batches(first, count) if self._rank == 0 else None
        return self.stage.train(batches, limit=count)

    def _batches(self, first: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        assert self.task is not None
        for step in range(first, first + count):
            self._parent.check()
            batch = self.task.training_batch(self.args.seed, step)
            yield batch.input, batch.target
            if self._progress is not None:
                self._progress.advance(1)

    def _report(self, reports: Sequence[TrainingReport]) -> None:
        """Evaluate, and print and save the figures of a round."""
        tests = None
        if self.task is not None:
            tests = [(batch.input, batch.target) for batch in self.task.test_batches()]
        value = self.stage.evaluate(tests, self.metric)
        if self._rank:
            return
        row = {"step": self.stage.batches, "test": value, **_summary(reports)}
        shown = ", ".join(f"{100 * share:.0f} %" for share in row["waiting"])
        # Above the bar, if there is one.
        tqdm.write(
            f"step {row['step']}: loss {row['training_loss']:.4f}, {self.describe(value)}, "
            f"{row['samples_per_second']:.0f} samples/s, waiting {shown}"
        )
        sys.stdout.flush()
        if self.args.out is not None:
            _append(self.args.out / METRICS, row)


def _summary(reports: Sequence[TrainingReport]) -> dict[str, Any]:
    """Return the figures of several reports together."""
    batches = sum(report.batches for report in reports)
    shares = zip(*(report.waiting for report in reports), strict=True)
    return {
        "training_loss": sum(report.loss * report.batches for report in reports) / batches,
        "samples_per_second": sum(report.samples for report in reports)
        / sum(report.seconds for report in reports),
        "waiting": [sum(rank) / len(reports) for rank in shares],
        "refused": [sum(rank) for rank in zip(*(r.refused for r in reports), strict=True)],
    }


def _append(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a file of rows, in place of those of later steps, which a crash may leave."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    rows = [kept for kept in rows if kept["step"] < row["step"]] + [row]
    with files.reporting_write_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, "".join(json.dumps(r) + "\n" for r in rows).encode())


def run_program(
    module: str,
    parser: options.Parser,
    make: type[PipelineRun],
    argv: Sequence[str] | None,
) -> int:
    """Run a program as one rank, or start all of its ranks; return the exit status.

    Args:
        module: Name of the program's module.
        parser: Its options.
        make: Makes the run, in a rank.
        argv: Command-line arguments; None takes those of the process.
    """
    argv = [*sys.argv[1:]] if argv is None else [*argv]
    args = parser.parse_args(argv)
    if not ranks.is_rank():
        options.run_program(parser, lambda: make.check(args))
        return ranks.launch(module, args.ranks, args.max_restarts, argv)

    def program() -> None:
        with ranks.process_group(args.timeout, args.threads):
            make(args).run()

    return options.run_program(parser, program)
