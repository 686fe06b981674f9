"""All programs have the same words for the same options."""

import importlib
from pathlib import Path

import pytest

import tasks
from tasks import copy_task
from tasks.episodes import MODES as EPISODE_MODES
from tasks.language_runs import MODES as LANGUAGE_MODES
from tasks.modes import MODES

FOLDER = Path(tasks.__file__).parent
PROGRAMS = sorted(
    path.stem for path in FOLDER.glob("*.py") if '__name__ == "__main__"' in path.read_text()
)
MEANINGS = {
    "--steps": "training steps",
    "--epochs": "passes over the",
    "--batch": "in a training step",
    "--lr": "learning rate of",
    "--grad-lr": "learning rate of the synthesizers",
    "--seed": "of weights and data",
    "--every": "training steps between",
    "--data": "folder that holds",
    "--device": "device to train on",
    "--threads": "threads that compute on the CPU",
    "--out": "folder for",
    "--resume": "continue the run whose folder is --out",
    "--live": "show loss and stats()",
    "--mode": "modes to compare",
    "--ranks": "number of processes",
    "--train-samples": "training",
    "--test-samples": "test",
    "--timeout": "seconds after which",
    "--depth": "number of",
    "--hidden": "width of",
    "--length": "",
    "--window": "time steps of a window",
    "--synthesizer-hidden": "width of the synthesizers",
}
OTHER_WORDS = {"--updates", "--iterations", "--samples", "--test", "--seeds", "--batches", "--size"}


def options_of(parser):
    return {name: action.help for action in parser._actions for name in action.option_strings}


def parsers():
    assert len(PROGRAMS) == 17
    for name in PROGRAMS:
        yield name, importlib.import_module(f"tasks.{name}").parser()
    yield "copy_task --window", copy_task.window_parser()


@pytest.mark.parametrize(("name", "parser"), [*parsers()])
def test_options_have_the_same_words(name, parser):
    found = options_of(parser)
    assert parser.format_help()
    assert not OTHER_WORDS & {*found}
    for option, meaning in MEANINGS.items():
        assert meaning in found.get(option, meaning), option
    assert {"--batch", "--lr", "--seed", "--threads"} <= {*found}
    assert {"--steps", "--epochs"} & {*found}
    assert parser.prog == f"python -m tasks.{name.split()[0]}"
    if "pipeline" not in name and name not in ("two_clocks", "audit", "influence"):
        assert {"--steps", "--resume", "--device", "--live", "--out", "--every"} <= {*found}


def test_backpropagation_has_one_name():
    for modes in (MODES, EPISODE_MODES, LANGUAGE_MODES):
        assert modes["bp"].startswith("backpropagation")
        assert not [mode for mode in modes if "bptt" in mode]
        others = [mode for mode, text in modes.items() if text.startswith("backpropagation")]
        assert all(mode.startswith("bp") for mode in others)
