"""Helpers for the tests of tasks and benchmarks."""

import itertools

import pytest
import torch

from tasks import output_folder


def run(module, *argv):
    return module.main([str(argument) for argument in argv])


def fails(capsys, module, *argv):
    """Run a program that must fail, and return the one line that it writes to stderr."""
    with pytest.raises(SystemExit) as ended:
        run(module, *argv)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in lines if line.strip() and "%|" not in line]  # without bars
    assert len(lines) == 1, lines
    return lines[0]


def table_rows(printed):
    """Return the cells of each row of the table in what a program has printed."""
    lines = iter(printed.splitlines())
    next(line for line in lines if line.startswith("---"))
    return [line.split() for line in itertools.takewhile(bool, lines)]


def assert_equal_results(resumed, whole):
    """Check that two folders of comparisons hold the same networks and figures."""
    checkpoints = [
        torch.load(folder / output_folder.CHECKPOINT, weights_only=True)
        for folder in (resumed, whole)
    ]
    for ours, theirs in zip(*(checkpoint["runs"] for checkpoint in checkpoints), strict=True):
        for key, value in theirs["net"].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, ours["net"][key]), key
    figures = [
        [{k: v for k, v in row.items() if k != "step_ms"} for row in checkpoint["history"]]
        for checkpoint in checkpoints
    ]
    assert figures[0] == figures[1]


def sequence_task(kind, length, **more):
    """Return a small task on sequences; ``more`` are options of the program."""
    values = {"hidden": 8, "depth": 2, "batch": 8, "default_steps": 1, "length": length}
    values |= {"device": torch.device("cpu"), "bits": 4, "digits": 5, "target": "position", **more}
    return kind(type("Args", (), values))


def episode_args(**more):
    """Return the options of a small task on windows; ``more`` replace some of them."""
    values = {"bits": 3, "repeats": 3, "start": 1, "cell": "lstm", "hidden": 8, "batch": 4}
    values |= {"window": 2, "lr": 1e-3, "forget_bias": 1.0, "clip": 1.0, "grad_lr": None}
    values |= {"synthesizer_hidden": 8, "factor": 1.0, "bound": 1.0}
    values |= {"lambda_": 0.9, "auxiliary": 0.1, "device": torch.device("cpu")}
    return type("Args", (), values | more)
