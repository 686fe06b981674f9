"""The programs in ``examples/`` do what they say, in a few seconds each."""

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib import pyplot

FOLDER = Path(__file__).parents[2] / "examples"
NOTEBOOK = FOLDER / "tour.ipynb"


def load(name):
    """Import a program by its file."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_program_is_tested_here():
    names = {path.stem for path in FOLDER.glob("*.py")}
    assert names == {"own_network", "residual_eager", "recurrent_windows", "ddp_mixed_precision"}


def test_the_one_line_learns_like_backpropagation(capsys):
    found = load("own_network").main(steps=120)
    assert found["backpropagation"] > 0.9
    assert found["synthetic gradients"] > found["backpropagation"] - 0.1
    assert "Feedback_DNI" in capsys.readouterr().out


def test_eager_parts_need_less_memory():
    found = load("residual_eager").main(steps=80)
    (loss, saved), (eager_loss, eager_saved) = found.values()
    assert eager_saved < 0.4 * saved
    assert eager_loss < 2 * loss


def test_windows_learn_across_their_ends():
    found = load("recurrent_windows").main(windows=1800)
    assert found["synthetic gradients"] > 0.9
    assert found["truncated backpropagation"] < 0.8


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_train_together(processes):
    launcher = [sys.executable]
    if processes > 1:
        options = ["--standalone", "--nproc-per-node", processes]
        launcher += ["-m", "torch.distributed.run", *map(str, options)]
    command = [*launcher, str(FOLDER / "ddp_mixed_precision.py"), "--steps", "60"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{processes} processes: ")
    _, first, last = (float(word.rstrip(",")) for word in line.split() if word[0].isdigit())
    assert last < 0.5 * first


def test_the_notebook_runs_and_shows_what_it_prints(monkeypatch):
    monkeypatch.setattr(pyplot, "show", lambda: None)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    namespace, code = {}, [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    for number, cell in enumerate(code, 1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), namespace)
        stored = "".join("".join(o.get("text", "")) for o in cell["outputs"])
        # Figures may differ in their last digits on another machine.
        assert len(stored.splitlines()) == len(printed.getvalue().splitlines()), number
    assert any("image/png" in o.get("data", {}) for cell in code for o in cell["outputs"])
