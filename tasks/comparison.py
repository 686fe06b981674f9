"""Training of all modes of a comparison on the same batches, and the table of their results."""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tqdm import tqdm

from pytorch_dni import DNIError

from . import comparison_options, options, output_folder
from .errors import TaskError
from .modes import Configuration
from .tables import format_table
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

    def train(self, total: int, every: int, save: Callable[[], None]) -> None:
        """Train until ``total`` steps; evaluate and save every ``every`` steps and at the end."""
        warm_up = True
        remaining = (total - self.step) * len(self.runs)
        with tqdm(total=remaining, unit="step", mininterval=0.5, dynamic_ncols=True) as bar:
            while self.step < total:
                end = min(self.step + _STEPS_PER_BLOCK, total, (self.step // every + 1) * every)
                evaluation_due = end % every == 0 or end == total
                self._train_block(end, warm_up, bar, evaluation_due)
                self.step, warm_up = end, False
                if evaluation_due:
                    self.history += [{"step": end, **run.evaluate()} for run in self.runs]
                    save()

    def _train_block(
        self, end: int, warm_up: bool, bar: tqdm[Any], always_show_progress: bool
    ) -> None:
        for seed in self._seeds:
            batches = [self._task.training_batch(seed, step) for step in range(self.step, end)]
            for run in self.runs:
                if run.seed != seed:
                    continue
                run.train_block(self.step, batches, warm_up)
                # Progress is computed only if it is shown: its figures wait for the device.
                if bar.update(len(batches)) or always_show_progress:
                    bar.set_postfix_str(run.progress())

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
        """Return a table with a row for each configuration.

        Figures are means over seeds, with the standard deviation of the test error; step times
        are medians over blocks.
        """
        std_header = ["std"] if len(self._seeds) > 1 else []
        header = ["mode", "lr", "train loss", "test loss", "test error %", *std_header, "cosine"]
        rows = [[*header, "step ms", "step/bp"]]
        for label in dict.fromkeys(run.configuration.label for run in self.runs):
            runs = [run for run in self.runs if run.configuration.label == label]
            last = [r for r in self.history if r["label"] == label and r["step"] == self.step]
            errors = [100 * r["test_error"] for r in last]
            rows.append(
                [
                    label,
                    f"{runs[0].configuration.lr:.2g}",
                    _mean([r["training_loss"] for r in last], ".4f"),
                    _mean([r["test_loss"] for r in last], ".4f"),
                    _mean(errors, ".2f"),
                    *[f"{statistics.stdev(errors):.2f}" for _ in std_header],
                    _mean([r["cosine"] for r in last], ".3f"),
                    _median([seconds for run in runs for seconds in run.block_times], 1e3),
                    _median([ratio for run in runs for ratio in self._step_time_ratios(run)]),
                ]
            )
        return format_table(rows)

    def _step_time_ratios(self, run: TrainingRun) -> list[float | None]:
        """Return the ratio of step time to that of backpropagation, for each block."""
        for other in self.runs:
            if other.seed == run.seed and other.configuration.mode == "bp":
                pairs = zip(run.block_times, other.block_times, strict=True)
                return [own / base if own and base else None for own, base in pairs]
        return []


def _mean(values: list[float | None], format_spec: str) -> str:
    known = [value for value in values if value is not None]
    return format(statistics.mean(known), format_spec) if known else "-"


def _median(values: list[float | None], factor: float = 1.0) -> str:
    known = [value for value in values if value is not None]
    return f"{factor * statistics.median(known):.2f}" if known else "-"


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
        "interrupted; with --out, --resume continues from the last evaluation",
    )


def _compare(
    parser: options.Parser,
    prepare: Callable[[argparse.Namespace], tuple[Task, list[Configuration]]],
    argv: Sequence[str] | None,
    finish: Callable[[argparse.Namespace, Task, Comparison], None] | None,
) -> None:
    args, checkpoint = comparison_options.parse(parser, argv)
    folder = output_folder.OutputFolder(args.out, args.resume)
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
    folder.create()
    kept = {
        "task": args.task,
        "options": comparison_options.determining_options(args),
        "total": total,
    }

    def save() -> None:
        folder.save({**kept, **comparison.state_dict()}, args.task)

    if comparison.step == total:
        save()  # the run before may have been killed between the checkpoint and the other files
    comparison.train(total, args.every, save)
    note = task.summary_note and f"; {task.summary_note}"
    chance = f"chance error {100 * task.chance_error:.1f} %"
    print(f"{args.task}, {comparison.step} steps{note}; {chance}")
    print(comparison.summary())
    if finish is not None:
        finish(args, task, comparison)


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
