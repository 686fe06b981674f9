"""The tasks: data, comparisons, records, resuming, and errors in one line."""

import io
import itertools
import json
import os
import subprocess
import sys

import pytest
import torch

from tasks import (
    adding_task,
    argmax_task,
    copy_task,
    mnist,
    mnist_interfaces,
    output_folder,
)
from tasks.comparison import Comparison
from tasks.modes import Configuration, MODES

needs_data = pytest.mark.skipif(
    not os.environ.get("DNI_DATA"), reason="DNI_DATA names no folder with MNIST"
)
SMALL = ["--batch", "8", "--hidden", "8", "--length", "3", "--device", "cpu"]
SEQUENCES = {"copy_task": copy_task, "adding_task": adding_task, "argmax_task": argmax_task}


def run(module, *argv):
    return module.main([str(argument) for argument in argv])


def fails(capsys, module, *argv):
    """The one line that a failing run tells."""
    with pytest.raises(SystemExit) as ended:
        run(module, *argv)
    assert ended.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()
    told = [line for line in told if "step/s" not in line and line]
    assert len(told) == 1, told
    return told[0]


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_comparison_prints_its_table_and_keeps_its_record(name, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(SEQUENCES[name], *SMALL, "--steps", 6, "--every", 3, "--out", folder) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[3:]] == [*MODES]
    assert "step/bp" in out
    rows = [json.loads(line) for line in (folder / output_folder.METRICS).read_text().splitlines()]
    assert [row["step"] for row in rows] == [3] * 4 + [6] * 4
    assert all(0 <= row["test_error"] <= 1 for row in rows)
    checkpoint = torch.load(folder / output_folder.CHECKPOINT, weights_only=True)
    assert checkpoint["step"] == 6
    assert (folder / output_folder.CURVES).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [output_folder.METRICS, output_folder.CHECKPOINT, output_folder.CURVES]
    )


def test_each_synthesizer_is_a_row(capsys):
    names = "linear,linear-sigmoid,rnn,local"
    assert run(argmax_task, *SMALL, "--steps", 2, "--mode", "cdni,bp", "--synthesizer", names) == 0
    out = capsys.readouterr().out
    for row in ("cdni linear ", "cdni linear-sigmoid", "cdni rnn", "local", "bp"):
        assert f"\n{row}" in out


def test_as_a_program():
    command = [sys.executable, "-m", "tasks.copy_task", *SMALL, "--steps", "3", "--mode", "bp,cdni"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cdni" in done.stdout


@pytest.mark.parametrize("name", SEQUENCES)
def test_resuming_is_as_if_never_stopped(name, tmp_path):
    module, common = SEQUENCES[name], [*SMALL, "--every", 2, "--synthesizer", "linear,rnn"]
    run(module, *common, "--steps", 4, "--out", tmp_path / "a")
    run(module, "--steps", 8, "--out", tmp_path / "a", "--resume", "--device", "cpu")
    run(module, *common, "--steps", 8, "--out", tmp_path / "b")
    kept = [torch.load(tmp_path / f / output_folder.CHECKPOINT, weights_only=True) for f in "ab"]
    for resumed, whole in zip(*(checkpoint["runs"] for checkpoint in kept), strict=True):
        for key, value in whole["net"].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, resumed["net"][key]), key
    figures = [
        [{k: v for k, v in row.items() if k != "step_ms"} for row in checkpoint["history"]]
        for checkpoint in kept
    ]
    assert figures[0] == figures[1]


def test_all_modes_begin_with_the_same_weights():
    args = sequence_args(copy_task, copy_task.CopyTask, 3)
    recipes = [Configuration(mode, 1e-3) for mode in MODES]
    comparison = Comparison(args, recipes, [1, 2], torch.device("cpu"))
    weights = [next(run.model.parameters()) for run in comparison.runs]
    assert all(torch.equal(w, weights[0]) for w in weights[:4])
    assert all(torch.equal(w, weights[4]) for w in weights[4:])
    assert not torch.equal(weights[0], weights[4])


def sequence_args(module, kind, length, **more):
    values = {"hidden": 8, "depth": 2, "batch": 8, "default_steps": 1, "length": length}
    values |= {"device": torch.device("cpu"), "bits": 4, "digits": 5, "target": "position", **more}
    return kind(type("Args", (), values))


def test_copy_data():
    task = sequence_args(copy_task, copy_task.CopyTask, 3)
    batch = task.sample(5, torch.Generator().manual_seed(0))
    for x, y in zip(batch.input.tolist(), batch.target.tolist(), strict=True):
        assert [step[-1] for step in x] == [0, 0, 0, 1, 0, 0, 0]
        assert [step[:4] for step in y[4:]] == [step[:4] for step in x[:3]]
        assert [step[-1] for step in y] == [0, 0, 0, 0, 1, 1, 1]
        assert not any(map(any, x[4:]))
    output = torch.zeros(5, 7, 4)
    output[:, 4:] = batch.input[:, :3, :4] * 2 - 1
    assert task.error(output, batch) == 0
    assert task.error(-output, batch) == 1
    good, bad = task.loss(output * 20, batch.target), task.loss(-output * 20, batch.target)
    assert good < 1e-6 < bad


@pytest.mark.parametrize("target", ["position", "value"])
def test_argmax_data(target):
    task = sequence_args(argmax_task, argmax_task.ArgmaxTask, 4, target=target)
    batch = task.sample(50, torch.Generator().manual_seed(0))
    for x, y in zip(batch.input.argmax(-1).tolist(), batch.target.tolist(), strict=True):
        assert y == (max(x) if target == "value" else x.index(max(x)))
    guesses = {}
    for digits in itertools.product(range(5), repeat=4):
        label = max(digits) if target == "value" else digits.index(max(digits))
        guesses[label] = guesses.get(label, 0) + 1
    assert task.chance_error == pytest.approx(1 - max(guesses.values()) / 5**4)


def test_adding_data():
    task = sequence_args(adding_task, adding_task.AddingTask, 3)
    batch = task.sample(50, torch.Generator().manual_seed(0))
    assert torch.equal(batch.input.argmax(-1).sum(1), batch.target)
    assert batch.context.shape == (50, 3, 14)
    assert batch.context[:, :, -1].tolist() == [[0, 0, 1]] * 50
    guesses = [sum(digits) for digits in itertools.product(range(5), repeat=3)]
    assert task.chance_error == pytest.approx(1 - max(map(guesses.count, guesses)) / 5**3)


def test_bad_options(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DNI_DATA", raising=False)
    for argv, words in [
        (["--mode", "bp,dna"], "'dna'"),
        (["--steps", "0"], "--steps"),
        (["--lr", "nan"], "--lr"),
        (["--device", "abacus"], "abacus"),
        (["--nonsense"], "--nonsense"),
        (["--resume"], "--out"),
        (["--resume", "--out", tmp_path / "none"], "no checkpoint"),
        (["--mode", "dni", "--synthesizer", "local"], "context"),
    ]:
        assert words in fails(capsys, copy_task, *argv)
    assert "--update-probability" in fails(capsys, mnist, "--update-probability", "1.5")
    assert "'0'" in fails(capsys, mnist, "--update-probability", "0")
    assert "--data" in fails(capsys, mnist)
    assert "no MNIST" in fails(capsys, mnist, "--data", tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path, capsys):
    folder = tmp_path / "run"
    run(copy_task, *SMALL, "--steps", 2, "--out", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    same = [*SMALL, "--steps", 4, "--out", folder]
    assert "holds a run already" in fails(capsys, copy_task, *same)
    assert "differs" in fails(capsys, copy_task, *same, "--resume", "--lr", "0.5")
    assert "another task" in fails(capsys, adding_task, "--out", folder, "--resume")
    assert "at step 2 already" in fails(
        capsys, copy_task, "--out", folder, "--resume", "--steps", 1
    )
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    buffer = io.BytesIO()
    torch.save({"step": print}, buffer)
    for content in (b"", b"nonsense", before[output_folder.CHECKPOINT][:200], buffer.getvalue()):
        (folder / output_folder.CHECKPOINT).write_bytes(content)
        told = fails(capsys, copy_task, "--out", folder, "--resume")
        assert "unreadable checkpoint" in told
        assert (folder / output_folder.CHECKPOINT).read_bytes() == content


def test_a_failed_write_leaves_what_was_there(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    run(copy_task, *SMALL, "--steps", 2, "--out", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in fails(capsys, copy_task, "--out", folder, "--resume", "--steps", 4)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_options_of_modes():
    args = mnist.parser().parse_args([])
    args.network, args.depth, args.layers = "mlp", 3, None
    args.unlock, args.update_probability = "update", 1.0
    shallow = {mode: mnist.configuration(args, mode) for mode in MODES}
    args.depth = 6
    deep = {mode: mnist.configuration(args, mode) for mode in MODES}
    assert shallow["bp"].lr == deep["bp"].lr == 3e-4
    assert deep["cdni"].lr < shallow["cdni"].lr
    args.update_probability = 0.1
    sparse = {mode: mnist.configuration(args, mode) for mode in MODES}
    assert sparse["cdni"].lr > shallow["cdni"].lr
    assert sparse["cdni"].dni_arguments["update_probability"] == 0.1
    assert sparse["bp"] == shallow["bp"]
    args.lr = 0.5
    assert {mnist.configuration(args, mode).lr for mode in MODES} == {0.5}


@needs_data
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_mnist(network, tmp_path, capsys):
    argv = ["--network", network, "--steps", 100, "--hidden", 64, "--mode", "bp,cdni,local"]
    assert run(mnist, *argv, "--batch", 32, "--lr", 1e-3, "--out", tmp_path / "run") == 0
    rows = (tmp_path / "run" / output_folder.METRICS).read_text().splitlines()
    errors = {row["mode"]: row["test_error"] for row in map(json.loads, rows)}
    assert errors["bp"] < 0.2
    assert errors["local"] < 0.3
    assert errors["cdni"] < 0.4


SHIM = """
import torch
{before}
from tasks import torchvision_import
from torchvision import datasets, models, transforms
x = models.resnet18(num_classes=3).eval()(torch.randn(1, 3, 32, 32))
assert x.shape == (1, 3)
print(sorted(torchvision_import.declared))
"""


def test_torchvision_imports_and_the_shim_is_used_only_where_needed():
    def declared(before):
        code = SHIM.format(before=before)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    bare = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True)
    missing = "[]" if bare.returncode == 0 else "['nms', 'qnms']"
    assert declared("") == missing
    # Where the operators are there, nothing is declared.
    there = (
        "library = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "boxes = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'\n"
        "[library.define(name + boxes) for name in ('nms', 'qnms')]"
    )
    assert declared(there if missing != "[]" else "") == "[]"


@needs_data
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_mnist_interfaces(network, tmp_path, capsys):
    out = tmp_path / "run"
    argv = ["--network", network, "--hidden", 32, "--batch", 32, "--synchronise", 10]
    assert run(mnist_interfaces, *argv, "--steps", 60, "--lr", 1e-3, "--out", out) == 0
    told = capsys.readouterr().out
    for mode in ("dni", "cdni", "full"):
        assert f"\n{mode} by hand " in told
        assert f"\n{mode} wrapped " in told
    rows = [json.loads(row) for row in (out / output_folder.METRICS).read_text().splitlines()]
    errors = {row["label"]: row["test_error"] for row in rows}
    assert errors["bp"] < 0.3
    assert abs(errors["cdni by hand"] - errors["cdni wrapped"]) < 0.2
    assert run(mnist_interfaces, "--out", out, "--resume", "--steps", 70) == 0


@needs_data
@pytest.mark.parametrize("argv", [["--unlock", "full"], ["--update-probability", "0.3"]])
def test_mnist_unlocked_and_sparse(argv, tmp_path):
    common = ["--hidden", 32, "--batch", 32, "--steps", 120, "--mode", "cdni", "--layers", "6"]
    assert run(mnist, *common, *argv, "--lr", 1e-3, "--out", tmp_path / "run") == 0
    rows = (tmp_path / "run" / output_folder.METRICS).read_text().splitlines()
    assert json.loads(rows[-1])["test_error"] < 0.6
