"""Training of all modes of a comparison on the same batches, and the table of their results."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from pytorch_dni import DNIError

from . import comparison_summary, live_table, options, output_folder, plots, resuming, threads
from .announcement import announce
from .errors import TaskError
from .modes import Configuration
from .progress import Progress
from .task import step_seed, Task
from .training_run import TrainingRun

# Runs are trained in turn, a block of steps each. Blocks are so short that changes in the speed of
# the machine affect all runs alike, and so long that a run finds its data in the caches for most of
# a block.
_STEPS_PER_BLOCK = 20


class Comparison:
    """Training runs of all configurations and seeds, which start from the same weights.

    Args:
        task: What the networks are trained on.
        configurations: One for each row of the table.
        seeds: Each determines initial weights, which all configurations share, and the data.
        device: Where the networks are trained.
        decay_steps: Number of steps in which the learning rate falls to zero, along half a period
            of a cosine; None for a constant learning rate.

    Attributes:
        runs: One run for each seed and configuration.
        step: Number of training steps that each run has taken.
        history: Figures of all evaluations, as plain data.
    """

    def __init__(
        self,
        task: Task,
        configurations: Sequence[Configuration],
        seeds: Sequence[int],
        device: torch.device,
        decay_steps: int | None = None,
    ) -> None:
        self.runs: list[TrainingRun] = []
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self._task = task
        self._seeds = seeds
        for seed in seeds:
            torch.manual_seed(step_seed(seed, -1))
            network = task.build_network()
            for configuration in configurations:
                # The copy is moved, not the original: copying the weights of a recurrent layer on
                # the device would lose their layout for cuDNN.
                moved = copy.deepcopy(network).to(device)
                self.runs.append(TrainingRun(configuration, seed, moved, task, decay_steps))

    def train(
        self,
        total: int,
        every: int,
        save: Callable[[], None],
        epochs: int | None = None,
        live: bool = False,
    ) -> None:
        """Train until ``total`` steps; evaluate and save every ``every`` steps and at the end.

        Args:
            total: Number of steps.
            every: Steps from one evaluation to the next.
            save: Called after each evaluation.
            epochs: Number of epochs that the steps make up, if epochs were asked for.
            live: Whether a table of ``stats()`` is shown on a terminal.
        """
        warm_up = True
        rows = self._live_rows if live else None
        progress = Progress(total, self.step, len(self.runs), epochs=epochs, rows=rows)
        with progress:
            while self.step < total:
                end = min(self.step + _STEPS_PER_BLOCK, total, (self.step // every + 1) * every)
                evaluation_due = end % every == 0 or end == total
                self._train_block(end, warm_up, progress, evaluation_due)
                progress.block_ended()
                self.step, warm_up = end, False
                if evaluation_due:
                    self.history += [{"step": end, **run.evaluate()} for run in self.runs]
                    save()

    def _train_block(
        self, end: int, warm_up: bool, progress: Progress, always_show_figures: bool
    ) -> None:
        for seed in self._seeds:
            batches = [self._task.training_batch(seed, step) for step in range(self.step, end)]
            for run in self.runs:
                if run.seed != seed:
                    continue
                run.train_block(self.step, batches, warm_up)
                # Figures are computed only if they are shown: they wait for the device.
                if progress.advance(len(batches)) or always_show_figures:
                    progress.show(run.progress())

    def _live_rows(self) -> list[Sequence[str]]:
        first = [run for run in self.runs if run.seed == self._seeds[0]]
        return live_table.rows(
            live_table.Trained(run.configuration.label, run.last_loss(), run.model) for run in first
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue the training, as plain data and tensors."""
        runs = [run.state_dict() for run in self.runs]
        return {"step": self.step, "runs": runs, "history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the training of a saved state."""
        for run, saved in zip(self.runs, state["runs"], strict=True):
            run.load_state_dict(saved)
        self.step = state["step"]
        self.history = list(state["history"])

    def summary(self) -> str:
        """Return a table with a row for each configuration, and what its columns mean."""
        return comparison_summary.summarise(self._task, self.runs, self.history, self.step)


def run(
    parser: options.Parser,
    prepare: Callable[[argparse.Namespace], tuple[Task, list[Configuration]]],
    argv: Sequence[str] | None,
    finish: Callable[[argparse.Namespace, Task, Comparison], None] | None = None,
) -> int:
    """Run a comparison as a program and return its exit status.

    Args:
        parser: Parser of its options.
        prepare: Makes the task and the configurations from the options.
        argv: Command-line arguments; None takes those of the process.
        finish: Called with the options, the task and the comparison when it has ended.
    """
    return options.run_program(
        parser,
        lambda: _compare(parser, prepare, argv, finish),
        options.INTERRUPTED,
    )


def _compare(
    parser: options.Parser,
    prepare: Callable[[argparse.Namespace], tuple[Task, list[Configuration]]],
    argv: Sequence[str] | None,
    finish: Callable[[argparse.Namespace, Task, Comparison], None] | None,
) -> None:
    args, checkpoint = resuming.parse(parser, argv)
    folder = output_folder.OutputFolder(args.out, args.task, args.resume)
    task, configurations = prepare(args)
    total = _total_steps(args, task, checkpoint)
    decay_steps = total if args.decay else None
    comparison = Comparison(task, configurations, args.seed, args.device, decay_steps)
    if checkpoint is not None:
        if args.decay and total != checkpoint["total"]:
            raise TaskError(
                "with --decay, the learning rate falls over the whole run: a run of "
                f"{checkpoint['total']} steps cannot be continued to another number of steps"
            )
        _resume(comparison, checkpoint, total)
    print(_announcement(args, task, comparison, total))
    print(folder.create(), flush=True)
    kept = {
        "task": args.task,
        "options": resuming.determining_options(args),
        "total": total,
    }

    def save() -> None:
        state = {**kept, **comparison.state_dict()}
        draw = partial(plots.plot_test_errors, comparison.history, args.task)
        folder.save(state, comparison.history, draw)

    if comparison.step == total:
        save()  # the run before may have been killed between the checkpoint and the other files
    comparison.train(total, args.every, save, args.epochs, args.live)
    note = task.summary_note and f"; {task.summary_note}"
    print(f"\n{args.task}, {comparison.step} steps{note}")
    print(comparison.summary())
    if finish is not None:
        finish(args, task, comparison)


def _announcement(args: argparse.Namespace, task: Task, comparison: Comparison, total: int) -> str:
    """Set the number of threads, and return what will be trained, as text."""
    network = task.build_network()
    count = sum(parameter.numel() for parameter in network.parameters())
    batch = task.training_batch(args.seed[0], 0)
    number = threads.use(args.threads, network.to(args.device), batch.input)
    labels = list(dict.fromkeys(run.configuration.label for run in comparison.runs))
    return announce(args, labels, count, number, f"to step {total}", comparison.step)


def _total_steps(args: argparse.Namespace, task: Task, checkpoint: dict[str, Any] | None) -> int:
    if args.steps is not None:
        return int(args.steps)
    # With --epochs, the default of the task is that number of epochs.
    if checkpoint is not None and args.epochs is None:
        return int(checkpoint["total"])
    return task.default_steps


def _resume(comparison: Comparison, checkpoint: dict[str, Any], total: int) -> None:
    try:
        comparison.load_state_dict(checkpoint)
    except (DNIError, RuntimeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise TaskError(f"the checkpoint does not fit this run: {error}") from error
    if total < comparison.step:
        raise TaskError(f"the checkpoint is at step {comparison.step} already, beyond step {total}")
