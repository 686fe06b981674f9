"""The study of windows: its runs, figures, and best learning rates."""

import json

from benchmarks import window_results, windows


def test_the_study_runs_every_mode_and_seed(tmp_path, capsys):
    file = tmp_path / "rows.json"
    argv = ["--task", "copy,recall", "--window", "2", "--seed", "1,2", "--steps", "30"]
    windows.main([*argv, "--json", str(file)])
    printed = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[:3] for line in printed] == [
        [task, "2", mode] for task in ("copy", "recall") for mode in ("bp", "bp4", "dni")
    ]
    rows = json.loads(file.read_text())
    assert len(rows) == 12
    assert all(row["steps"] == 30 for row in rows)


def test_intervals_and_results_at_a_time():
    assert window_results.confidence_interval([3, 3, 3]) == (3, 3)
    low, high = window_results.confidence_interval([0, 1] * 20)
    assert 0.3 < low < 0.5 < high < 0.7
    row = {"solved": 2, "history": [[0, 0.0, 1], [50, 2.0, 2], [90, 5.0, 3]]}
    assert [window_results.result(row, t) for t in (0.0, 1.9, 2.0, 4.9, 9.0)] == [0, 0, 1, 1, 2]
    assert window_results.result(row) == 2
    text = {"history": [[5, 1.0, 4.5], [9, 2.0, 3.5]]}
    assert [window_results.result(text, t) for t in (1.0, 1.9, 2.0)] == [4.5, 4.5, 3.5]


def test_every_mode_is_listed_at_its_best_learning_rate(tmp_path, capsys):
    def row(mode, lr, seed, solved):
        history = [[0, 0.0, 1], [9, 1.0, solved + 1]]
        return {"task": "copy", "window": 3, "mode": mode, "lr": lr, "seed": seed,
                "solved": solved, "steps": 9, "seconds": 1.0, "history": history}  # fmt: skip

    rows = [row("bp", 1e-3, s, 1) for s in (1, 2)] + [row("bp", 1e-2, s, s) for s in (1, 2)]
    rows += [row("dni", 1e-3, s, 3) for s in (1, 2)] + [row("dni", 1e-2, s, 2) for s in (1, 2)]
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, part in zip(files, (rows[:3], rows[3:]), strict=True):
        file.write_text(json.dumps(part))
    windows.main(["--read", *map(str, files), "--plot", str(tmp_path / "plot.png")])
    printed = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[2:5] for line in printed] == [["bp", "0.01", "1.50"], ["dni", "0.001", "3.00"]]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
