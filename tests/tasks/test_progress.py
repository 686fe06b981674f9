"""The progress bar counts what was asked for."""

import io
import re
import sys

import pytest

from tasks import audit, copy_task, recall_task, two_clocks
from tasks.progress import duration, Progress
from tests.support.digits import write_digits
from tests.support.programs import run

SMALL = ["--batch", 4, "--hidden", 8, "--device", "cpu"]


def counts(capsys):
    """Return what the bars have counted last, and to what."""
    bars = re.split("[\r\n]", capsys.readouterr().err)
    found = [re.search(r"([\d.]+)/([\d.]+) \[", bar) for bar in bars]
    return [match.groups() for match in found if match][-1]


@pytest.mark.parametrize("seeds", ["1", "1,2"])
def test_steps_of_a_comparison_are_counted_once_for_all_modes_and_seeds(seeds, capsys, tmp_path):
    argv = [*SMALL, "--mode", "bp,feedback,cdni", "--seed", seeds, "--length", 2]
    run(copy_task, *argv, "--steps", 44, "--out", tmp_path / "run")
    assert counts(capsys) == ("44", "44")
    run(copy_task, "--steps", 50, "--resume", "--out", tmp_path / "run", "--device", "cpu")
    assert counts(capsys) == ("50", "50")


def test_steps_and_seconds_of_windows_are_counted_once_for_all_modes(capsys):
    argv = [*SMALL, "--mode", "bp,dni", "--seed", "1,2", "--synthesizer-hidden", 8]
    run(recall_task, *argv, "--steps", 60)
    assert counts(capsys) == ("60", "60")
    run(recall_task, *argv, "--seconds", "0.1")
    assert counts(capsys) == ("0.1", "0.1")


def test_steps_of_each_mode_are_counted_where_modes_follow_each_other(tmp_path, capsys):
    argv = ["--data", write_digits(tmp_path), "--steps", 3, "--batch", 4, "--hidden", 8]
    run(two_clocks, *argv, "--mode", "bp,dni")
    assert counts(capsys) == ("3", "3")
    run(audit, *argv, "--mode", "feedback", "--device", "cpu")
    assert counts(capsys) == ("3", "3")


def test_epochs_are_counted(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress(30, 10, runs=2, epochs=3) as progress:
        assert progress._bar.desc == "epoch 2 of 3 "
        progress.advance(10)
        assert progress._bar.desc == "epoch 2 of 3 "
        progress.advance(10)
        assert progress._bar.desc == "epoch 3 of 3 "
        progress.advance(20)
        assert progress._bar.desc == "epoch 3 of 3 "
        assert progress._bar.n == 30
    assert "epoch 3 of 3 100%" in sys.stderr.getvalue()


def test_the_time_that_remains_is_told_after_the_second_block(monkeypatch, capsys):
    clock = iter([0.0, 9.0, 11.0, 13.0, 15.0]).__next__
    monkeypatch.setattr("tasks.progress.time.monotonic", clock)
    with Progress(400) as progress:
        for _ in range(2):
            progress._done += 10
            progress.block_ended()
    # Ten steps took two seconds, and 380 are left; the first ten do not count.
    assert capsys.readouterr().out == "about 76 s to go, by the time of the first steps\n"


def test_durations_have_a_unit_that_suits_them():
    texts = [duration(seconds) for seconds in (0.1, 76.4, 100, 5399, 5500)]
    assert texts == ["1 s", "76 s", "2 minutes", "90 minutes", "1.5 hours"]
