"""Language models: comparisons, samples, options."""

import json
import math

import pytest
import torch

from tasks import char_language_model, language_runs, word_language_model
from tests.support.programs import run

SMALL = ["--batch", "4", "--hidden", "12", "--window", "3", "--synthesizer-hidden", "8"]
SMALL += ["--device", "cpu", "--every", "10"]
MODELS = {"char": char_language_model, "word": word_language_model}


@pytest.mark.parametrize("name", MODELS)
def test_a_comparison_learns_prints_its_table_and_can_be_sampled(name, corpus, capsys):
    module, out = MODELS[name], corpus / "run"
    common = [*SMALL, "--data", corpus, "--lr", 2e-2]
    assert run(module, *common, "--updates", 60, "--seed", "1,2", "--out", out) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[2:]] == [*language_runs.MODES]
    assert [line.split()[1] for line in printed[2:]] == ["3", "12", "3"]
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    runs = {(mode, seed): [] for mode in language_runs.MODES for seed in (1, 2)}
    for row in rows:
        runs[row["mode"], row["seed"]].append(row)
    chance = math.log2(9 if name == "word" else 20)  # bits for each token
    for evaluations in runs.values():
        assert [row["updates"] for row in evaluations] == [10, 20, 30, 40, 50, 60]
        bits = [row["bits"] for row in evaluations]
        assert bits[-1] < bits[0] < chance
        assert bits[-1] < 0.9 * chance
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoint.pt",
        "curves.png",
        "results.jsonl",
    ]
    assert torch.load(out / "checkpoint.pt", weights_only=True)["task"].startswith(name)
    assert run(module, "--out", out, "--sample", 12, "--device", "cpu") == 0
    text = capsys.readouterr().out.rstrip("\n")
    assert run(module, "--out", out, "--sample", 12, "--device", "cpu") == 0
    assert capsys.readouterr().out.rstrip("\n") == text
    count = len(text.split()) if name == "word" else len(text)
    assert count <= 12
    assert run(module, *common, "--seconds", 0.2, "--mode", "dni") == 0


def test_wrong_options_are_errors(corpus, capsys, monkeypatch):
    monkeypatch.delenv("DNI_DATA", raising=False)
    module = char_language_model
    out = corpus / "run"
    for argv, words in [
        ([], "--data"),
        (["--data", corpus / "none"], "ptb.train.txt"),
        (["--data", corpus, "--mode", "bp"], "'bp'"),
        (["--data", corpus, "--batch", 5000], "--batch 5000"),
        (["--sample", 3], "--out"),
        (["--sample", 3, "--out", corpus], "nothing to sample"),
    ]:
        with pytest.raises(SystemExit) as ended:
            run(module, *argv)
        assert ended.value.code == 2
        assert words in capsys.readouterr().err
    run(module, *SMALL, "--data", corpus, "--updates", 2, "--out", out)
    capsys.readouterr()
    for other, argv, words in [
        (module, [*SMALL, "--data", corpus, "--out", out], "holds a run already"),
        (word_language_model, ["--sample", 3, "--out", out], "is of char_language_model"),
    ]:
        with pytest.raises(SystemExit):
            run(other, *argv)
        assert words in capsys.readouterr().err
    (out / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(SystemExit):
        run(module, "--sample", 3, "--out", out)
    assert "unreadable checkpoint" in capsys.readouterr().err
