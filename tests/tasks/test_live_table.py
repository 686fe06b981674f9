"""The live table: refreshed in place on a terminal, and nowhere else."""

import io
import re
import types

import pytest
import torch
from torch import nn

from pytorch_dni import DNI
from tasks import copy_task, live_table, mnist, progress, recall_task
from tasks.live_table import LiveTable, Trained
from tests.support.digits import write_digits
from tests.support.programs import run

SMALL = ["--batch", 4, "--hidden", 8, "--device", "cpu", "--synthesizer-hidden", 8]


class Terminal(io.StringIO):
    """Keeps what is on the screen of a terminal, as far as bars and tables write to it."""

    def isatty(self):
        return True

    def screen(self):
        """Return the lines that can be seen, after all that has been written."""
        lines, row = [""], 0
        for part in re.split("(\n|\r|\x1b\\[A)", self.getvalue()):
            if part == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
                column = 0
            elif part == "\r":
                column = 0
            elif part == "\x1b[A":
                row -= 1
            elif part:
                lines[row] = lines[row][:column] + part + lines[row][column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in lines]


@pytest.fixture
def terminal(monkeypatch):
    made = Terminal()
    # Pytest puts its own stream into sys.stderr after this.
    monkeypatch.setattr(progress, "sys", types.SimpleNamespace(stderr=made))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "30")
    monkeypatch.setattr(progress, "_REFRESH", 0.0)
    return made


def wrapped():
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    net = DNI(network)
    for _ in range(3):
        net(torch.randn(8, 4)).square().mean().backward()
    return net


def test_rows_are_the_figures_of_the_cuts():
    net, bare = wrapped(), nn.Linear(2, 2)
    header, *rows = live_table.rows([Trained("bp", 0.5, bare), Trained("feedback", None, net)])
    assert header == ("mode", "train loss", "cut", "cosine", "norm ratio", "explained")
    assert rows[0] == ["bp", "0.5000", "-", "-", "-", "-"]
    stats = net.stats()
    assert [row[:3] for row in rows[1:]] == [["feedback", "-", "1"], ["", "", "3"]]
    for row, own in zip(rows[1:], stats.values(), strict=True):
        explained = f"{100 * (1 - own.loss):.0f} %"
        assert row[3:] == [f"{own.cosine:.2f}", f"{own.norm_ratio:.2f}", explained]


def test_networks_with_interfaces_of_their_own_have_rows():
    own = nn.Linear(2, 2)
    stats = types.SimpleNamespace(loss=0.25, cosine=0.5, norm_ratio=0.75)
    own.stats = lambda: {"middle": stats}
    assert live_table.by_cut(own) == {"middle": {"loss": 0.25, "cosine": 0.5, "norm_ratio": 0.75}}


def test_a_table_is_replaced_in_place(terminal):
    table = LiveTable(terminal)
    table.show([["mode", "loss"], ["bp", "0.5"], ["dni", "0.7"]])
    first = terminal.screen()
    assert first[1:5] == ["mode  loss", "----  ----", "bp     0.5", "dni    0.7"]
    table.show([["mode", "loss"], ["bp", "0.2"]])
    assert terminal.screen()[1:5] == ["mode  loss", "----  ----", "bp     0.2", ""]
    table.close()
    assert not any(terminal.screen())


def test_a_table_fits_into_the_terminal(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "9")
    monkeypatch.setenv("LINES", "7")
    table = LiveTable(terminal)
    table.show([["mode", "a long name"], *([f"m{i}", "1"] for i in range(20))])
    shown = terminal.screen()[1:]
    assert shown[:4] == ["mode  a", "----  --", "m0", "... and"]
    assert not any(shown[4:])
    table.close()


@pytest.mark.parametrize("name", ["comparison", "windows"])
def test_programs_show_a_table_on_a_terminal(name, terminal, monkeypatch):
    shown, show = [], LiveTable.show

    def kept(self, rows):
        show(self, rows)
        shown.append(terminal.screen())

    monkeypatch.setattr(LiveTable, "show", kept)
    if name == "comparison":
        argv = [*SMALL, "--length", 2, "--steps", 24, "--mode", "bp,cdni"]
        run(copy_task, *argv, "--live")
        cuts = ["lstms.0", "lstms.1"]
    else:
        argv = [*SMALL, "--window", 2, "--steps", 60, "--mode", "bp,dni"]
        run(recall_task, *argv, "--live")
        cuts = ["core.state"]
    lines = [line for line in shown[-1] if line]
    assert "%|" in lines[0]
    assert lines[1].split()[:3] == ["mode", "train", "loss"]
    assert [line.split()[0] for line in lines[3:5]] == ["bp", argv[-1].split(",")[1]]
    assert [cut for line in lines for cut in cuts if f" {cut} " in line] == cuts
    assert len(lines) == 4 + len(cuts)
    assert len(shown) > 1
    assert all("%|" in line for line in terminal.screen() if line)  # the bar alone
    before = terminal.getvalue()
    run(copy_task if name == "comparison" else recall_task, *argv)
    assert "norm ratio" not in terminal.getvalue()[len(before) :]


def test_without_a_terminal_there_is_no_table(monkeypatch, capsys):
    argv = [*SMALL, "--length", 2, "--steps", 4, "--mode", "bp,cdni", "--live"]
    assert run(copy_task, *argv) == 0
    assert "norm ratio" not in "".join(capsys.readouterr())


def test_it_shows_wrapped_networks_of_other_programs(terminal, tmp_path):
    argv = ["--data", write_digits(tmp_path), "--steps", 2, "--batch", 4, "--hidden", 8]
    run(mnist, *argv, "--mode", "feedback", "--device", "cpu", "--live")
    assert "norm ratio" in terminal.getvalue()
