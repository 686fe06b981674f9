"""The loop: all modes side by side, in turns of a few steps, on the same batches."""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tqdm import tqdm

from pytorch_dni import DNIError

from . import options, record
from .modes import Recipe, Run
from .options import TaskError
from .task import seed_of, Task

# Turns short enough that all modes meet the same noise of the machine, long enough that each
# finds its data in the caches for most of a turn.
_TURN = 20


class Comparison:
    """Runs of all modes and seeds, from equal weights.

    Args:
        task: What they learn.
        recipes: The modes.
        seeds: Each makes one set of weights, which all modes start from, and one order of data.
        device: Where they train.
    """

    def __init__(
        self, task: Task, recipes: Sequence[Recipe], seeds: Sequence[int], device: torch.device
    ) -> None:
        self.runs: list[Run] = []
        self.step = 0
        self.history: list[record.Row] = []
        self._task = task
        self._seeds = seeds
        for seed in seeds:
            torch.manual_seed(seed_of(seed, -1))
            network = task.network()
            for recipe in recipes:
                # Moved after copying: a copy of recurrent weights loses their layout for cuDNN.
                self.runs.append(Run(recipe, seed, copy.deepcopy(network).to(device), task))

    def train(self, total: int, every: int, save: Callable[[], None]) -> None:
        """Train up to step ``total``; evaluate and save each ``every`` steps and at the end."""
        warm = False
        remaining = (total - self.step) * len(self.runs)
        with tqdm(total=remaining, unit="step", mininterval=0.5, dynamic_ncols=True) as bar:
            while self.step < total:
                end = min(self.step + _TURN, total, (self.step // every + 1) * every)
                due = end % every == 0 or end == total
                self._turn(end, warm, bar, show=due)
                self.step, warm = end, True
                if due:
                    for run in self.runs:
                        self._evaluate(run)
                    save()

    def _turn(self, end: int, warm: bool, bar: tqdm[Any], show: bool) -> None:
        for seed in self._seeds:
            steps = range(self.step, end)
            batches = [self._task.batch(seed, step) for step in steps]
            for run in (run for run in self.runs if run.seed == seed):
                times = []
                for step, batch in zip(steps, batches, strict=True):
                    # Equal random numbers for all modes, and for a run that was resumed.
                    torch.manual_seed(seed_of(seed, step))
                    times.append(run.step(batch))
                run.block_times.append(statistics.median(times) if warm else None)
                # Reading figures waits for the device, so only when they are shown.
                if bar.update(len(batches)) or show:
                    bar.set_postfix_str(_figures(run))

    def _evaluate(self, run: Run) -> None:
        test_loss, test_error = run.evaluate()
        times = [time for time in run.block_times if time is not None]
        self.history.append(
            {
                "step": self.step,
                "label": run.recipe.label,
                "mode": run.recipe.mode,
                "synthesizer": run.recipe.synthesizer,
                "seed": run.seed,
                "lr": run.recipe.lr,
                "training_loss": run.training_loss(),
                "test_loss": test_loss,
                "test_error": test_error,
                "cosine": run.cosine(),
                "step_ms": 1e3 * times[-1] if times else None,
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """All that training goes on from, as plain data and tensors."""
        runs = [run.state_dict() for run in self.runs]
        return {"step": self.step, "runs": runs, "history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        for run, saved in zip(self.runs, state["runs"], strict=True):
            run.load_state_dict(saved)
        self.step = state["step"]
        self.history = list(state["history"])

    def summary(self) -> str:
        """A table with a line for each mode: means over seeds, with their standard deviation."""
        head = ["mode", "lr", "train loss", "test loss", "test error %"]
        seeds = len(self._seeds) > 1
        rows = [[*head, *["+-"] * seeds, "cosine", "step ms", "step/bp"]]
        for label in dict.fromkeys(run.recipe.label for run in self.runs):
            runs = [run for run in self.runs if run.recipe.label == label]
            last = [r for r in self.history if r["label"] == label and r["step"] == self.step]
            errors = [100 * r["test_error"] for r in last]
            rows.append(
                [
                    label,
                    f"{runs[0].recipe.lr:.2g}",
                    _mean([r["training_loss"] for r in last], ".4f"),
                    _mean([r["test_loss"] for r in last], ".4f"),
                    _mean(errors, ".2f"),
                    *[f"{statistics.stdev(errors):.2f}" for _ in range(seeds)],
                    _mean([r["cosine"] for r in last], ".3f"),
                    _median([t for run in runs for t in run.block_times], 1e3),
                    _median([ratio for run in runs for ratio in self._ratios(run)]),
                ]
            )
        return record.table(rows)

    def _ratios(self, run: Run) -> list[float | None]:
        """Step times relative to backpropagation's in the same turn."""
        for bp in self.runs:
            if bp.seed == run.seed and bp.recipe.mode == "bp":
                pairs = zip(run.block_times, bp.block_times, strict=True)
                return [time / base if time and base else None for time, base in pairs]
        return []


def _figures(run: Run) -> str:
    cosine = run.cosine()
    shown = "" if cosine is None else f", cos {cosine:.2f}"
    loss, error = run.losses[-1].item(), 100 * run.batch_error()
    return f"{run.recipe.label}: loss {loss:.4f}, error {error:.1f} %{shown}"


def _mean(values: list[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return format(statistics.mean(known), form) if known else "-"


def _median(values: list[float | None], factor: float = 1.0) -> str:
    known = [value for value in values if value is not None]
    return f"{factor * statistics.median(known):.2f}" if known else "-"


def main(
    parser: options.Parser,
    make: Callable[[argparse.Namespace], tuple[Task, list[Recipe]]],
    argv: Sequence[str] | None,
) -> int:
    """Run a task from its command line; errors end it with one line and exit status 2."""
    try:
        _run(parser, make, argv)
    except (TaskError, DNIError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("interrupted; with --out, --resume goes on from the last evaluation", file=sys.stderr)
        return 130
    return 0


def _run(
    parser: options.Parser,
    make: Callable[[argparse.Namespace], tuple[Task, list[Recipe]]],
    argv: Sequence[str] | None,
) -> None:
    args, checkpoint = options.parse(parser, argv, record.load)
    folder = record.Record(args.out, args.resume)
    task, recipes = make(args)
    comparison = Comparison(task, recipes, args.seed, args.device)
    total = args.steps or (checkpoint["total"] if checkpoint else task.total)
    if checkpoint is not None:
        _resume(comparison, checkpoint, total)
    folder.open()

    def save() -> None:
        kept = {"task": args.task, "options": options.binding(args), "total": total}
        folder.save({**kept, **comparison.state_dict()}, args.task)

    comparison.train(total, args.every, save)
    print(f"{args.task}, {comparison.step} steps; guessing errs in {100 * task.chance:.1f} %")
    print(comparison.summary())


def _resume(comparison: Comparison, checkpoint: dict[str, Any], total: int) -> None:
    try:
        comparison.load_state_dict(checkpoint)
    except (DNIError, RuntimeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise TaskError(f"the checkpoint does not fit this run: {error}") from error
    if total < comparison.step:
        raise TaskError(
            f"the checkpoint is at step {comparison.step} already, beyond the {total} asked for"
        )
