"""What the first command of the README says and saves."""

import re

import pytest

from tasks import comparison_summary, copy_task, output_folder, recall_task
from tests.support.programs import run, table_rows

SMALL = ["--batch", 4, "--hidden", 8, "--device", "cpu"]


def test_it_says_what_is_trained_and_what_the_table_means(capsys):
    argv = [*SMALL, "--length", 2, "--steps", 50, "--mode", "bp,cdni"]
    assert run(copy_task, *argv) == 0
    first, second, third, fourth, *rest = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"copy_task trains to step 50: 2 networks of 1,\d+ parameters in turn, with batches of 4, "
        r"on the CPU, 1 thread",
        first,
    )
    assert second == "modes: bp, cdni linear; seeds: 1"
    assert third.startswith("picture curves.png")
    assert re.fullmatch(r"about \d+ s to go, by the time of the first steps", fourth)
    for words in (
        "test error: share of wrong bits in the answer",
        "by chance it is 50.0 %",
        "cosine: ",
        "step ms: ",
        "step/bp: ",
    ):
        assert words in " ".join(rest)


@pytest.mark.parametrize("name", ["copy_task", "recall_task"])
def test_it_saves_its_picture_without_being_asked(name, capsys):
    module = {"copy_task": copy_task, "recall_task": recall_task}[name]
    argv = [*SMALL, "--steps", 3, "--mode", "bp"]
    for folder in (name, f"{name}-2"):
        run(module, *argv)
        path = output_folder.RUNS / folder
        assert f"are kept in {path}\n" in capsys.readouterr().out
        assert (path / output_folder.CURVES).read_bytes().startswith(b"\x89PNG")
        assert (path / output_folder.CHECKPOINT).exists()
    assert len([*output_folder.RUNS.iterdir()]) == 2


def test_it_runs_where_nothing_can_be_written(capsys, monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(output_folder, "RUNS", file / "runs")
    assert run(copy_task, *SMALL, "--length", 2, "--steps", 3, "--mode", "bp") == 0
    printed = capsys.readouterr().out
    assert "nothing is saved: cannot write to --out" in printed
    assert table_rows(printed)[0][0] == "bp"


def row(mode, error, cosine=None, loss=1.0):
    figures = {"training_loss": loss, "test_loss": 1.0, "test_error": error, "cosine": cosine}
    return {"mode": mode, "label": mode, **figures}


def test_a_mode_that_fails_has_its_reason_beside_it():
    learned, failed = row("bp", 0.1), row("dni", 0.4, 0.3)
    failure = comparison_summary.failure
    assert failure("bp", [learned, failed], 0.5) == ""
    assert failure("dni", [learned, failed], 0.5) == "fails: it is not told the targets"
    assert failure("dni", [learned, row("dni", 0.29, 0.02)], 0.5) == ""
    for cosine, words in ((0.02, "unrelated to"), (0.6, "too far from")):
        own = failure("own", [learned, row("own", 0.4, cosine)], 0.5)
        assert own == f"fails: its synthetic gradients are {words} the true ones"
    # Where backpropagation does not learn either, the mode is not the reason.
    early = "not better than chance yet; give more --steps"
    for rows in ([row("bp", 0.5), row("dni", 0.5)], [row("dni", 0.5)]):
        assert failure("dni", rows, 0.5) == early
    assert failure("bp", [row("bp", 0.5), failed], 0.5) == early
    assert failure("dni", [row("bp", 0.5), failed], 0.5) == ""
    assert "not finite" in failure("cdni", [row("cdni", 0.5, loss=float("nan"))], 0.5)


def test_reasons_stand_in_the_row(capsys):
    argv = [*SMALL, "--length", 2, "--steps", 3, "--mode", "bp,cdni", "--lr", "1e12"]
    run(copy_task, *argv)
    for cells in table_rows(capsys.readouterr().out):
        assert " ".join(cells).endswith("give a smaller --lr") or cells[-2:] == ["more", "--steps"]
    run(recall_task, *SMALL, "--steps", 5, "--mode", "bp", "--lr", "1e12", "--clip", 0)
    (cells,) = table_rows(capsys.readouterr().out)
    assert cells[0] == "bp"
