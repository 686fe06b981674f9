"""Language models: comparisons, samples, options."""

import json
import math

import pytest
import torch

from tasks import char_language_model, language_runs, output_folder, word_language_model
from tests.support.programs import fails, run, table_rows

SMALL = ["--batch", "4", "--hidden", "12", "--window", "3", "--synthesizer-hidden", "8"]
SMALL += ["--device", "cpu", "--every", "10"]
MODELS = {"char": char_language_model, "word": word_language_model}


@pytest.mark.parametrize("name", MODELS)
def test_a_comparison_learns_prints_its_table_and_can_be_sampled(name, corpus, capsys):
    module, out = MODELS[name], corpus / "run"
    common = [*SMALL, "--data", corpus, "--lr", 2e-2]
    assert run(module, *common, "--steps", 60, "--seed", "1,2", "--out", out) == 0
    printed = table_rows(capsys.readouterr().out)
    assert [row[0] for row in printed] == [*language_runs.MODES]
    assert [row[1] for row in printed] == ["3", "12", "3"]
    rows = [json.loads(line) for line in (out / output_folder.METRICS).read_text().splitlines()]
    runs = {(mode, seed): [] for mode in language_runs.MODES for seed in (1, 2)}
    for row in rows:
        runs[row["mode"], row["seed"]].append(row)
    chance = math.log2(9 if name == "word" else 20)  # bits for each token
    for evaluations in runs.values():
        assert [row["step"] for row in evaluations] == [10, 20, 30, 40, 50, 60]
        bits = [row["bits"] for row in evaluations]
        assert bits[-1] < bits[0] < chance
        assert bits[-1] < 0.9 * chance
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoint.pt",
        "curves.png",
        "metrics.jsonl",
        "network.pt",
    ]
    assert torch.load(out / "network.pt", weights_only=True)["task"].startswith(name)
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
        (["--data", corpus, "--mode", "bptt"], "'bptt'"),
        (["--data", corpus, "--batch", 5000], "--batch 5000"),
        (["--sample", 3], "--out"),
        (["--sample", 3, "--out", corpus], "nothing to sample"),
    ]:
        assert words in fails(capsys, module, *argv)
    run(module, *SMALL, "--data", corpus, "--steps", 2, "--out", out)
    capsys.readouterr()
    for other, argv, words in [
        (module, [*SMALL, "--data", corpus, "--out", out], "holds a run already"),
        (word_language_model, ["--sample", 3, "--out", out], "is of char_language_model"),
    ]:
        assert words in fails(capsys, other, *argv)
    (out / "network.pt").write_bytes(b"nonsense")
    message = fails(capsys, module, "--sample", 3, "--out", out)
    assert "unreadable checkpoint" in message
