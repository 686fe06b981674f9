"""The language models: text, tables, checkpoints, samples."""

import json
import math
import random

import pytest
import torch

from tasks import char_language_model, language_runs, language_training, word_language_model

SMALL = ["--batch", "4", "--hidden", "12", "--window", "3", "--synthesizer-hidden", "8"]
SMALL += ["--device", "cpu", "--every", "10"]
MODELS = {"char": char_language_model, "word": word_language_model}


@pytest.fixture
def folder(tmp_path):
    words, chance = ["the", "cat", "sat", "on", "a", "mat", "<unk>", "N"], random.Random(0)
    for split, lines in (("train", 80), ("valid", 30), ("test", 30)):
        text = "\n".join(
            " ".join(chance.choices(words, [9, 5, 3, 2, 1, 1, 1, 1], k=6)) for _ in range(lines)
        )
        (tmp_path / f"ptb.{split}.txt").write_text(text + "\n")
    return tmp_path


def run(module, *argv):
    return module.main([str(argument) for argument in argv])


@pytest.mark.parametrize("name", MODELS)
def test_a_comparison_learns_prints_its_table_and_can_be_sampled(name, folder, capsys):
    module, out = MODELS[name], folder / "run"
    common = [*SMALL, "--data", folder, "--lr", 2e-2]
    assert run(module, *common, "--updates", 60, "--seed", "1,2", "--out", out) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told[2:]] == [*language_runs.MODES]
    assert [line.split()[1] for line in told[2:]] == ["3", "12", "3"]
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {(r["mode"], r["seed"]) for r in rows} == {
        (m, s) for m in language_runs.MODES for s in (1, 2)
    }
    symbols = 9 if name == "word" else 20
    for row in rows:
        if row["updates"] == 60:
            assert row["bits"] < math.log2(symbols)
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


def test_symbols(folder):
    text = language_runs.PennTreebank(folder, list)
    assert "".join(text.vocabulary[i] for i in text.splits["test"].tolist()) == (
        (folder / "ptb.test.txt").read_text()
    )
    (folder / "ptb.test.txt").write_text("the dog sat\n")
    words = language_runs.PennTreebank(folder, word_language_model.split_into_words)
    told = [words.vocabulary[i] for i in words.splits["test"].tolist()]
    assert told == ["the", "<unk>", "sat", "<eos>"]
    streams = language_runs.split_into_streams(torch.arange(11), 3)
    assert streams.tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_bits_are_those_of_the_whole_validation_text(folder):
    argv = [*SMALL, "--data", str(folder)]
    made = language_training.language_parser("char_language_model", "", hidden=8)
    args = made.parse_args(argv)
    text = language_runs.PennTreebank(folder, list)
    run_ = language_runs.LanguageRun("bptt", 1, text, args)
    with torch.no_grad():
        for parameter in run_.network.parameters():
            parameter.zero_()
    assert run_.evaluate() == pytest.approx(math.log2(len(text.vocabulary)))


def test_windows_follow_each_other_through_the_text(folder):
    args = language_training.language_parser("char_language_model", "", hidden=8).parse_args(
        [*SMALL, "--data", str(folder)]
    )
    run_ = language_runs.LanguageRun("dni", 1, language_runs.PennTreebank(folder, list), args)
    length = len(run_._training_tokens)
    places, last = [], 0
    for _ in range(length):
        run_.update()
        if run_._position < last:
            assert last == length - 1
        elif last:
            assert run_._position == min(last + 3, length - 1)
        places.append(run_._position)
        last = run_._position
    assert places.count(length - 1) >= 2


def test_bad_options(folder, capsys, monkeypatch):
    monkeypatch.delenv("DNI_DATA", raising=False)
    module = char_language_model
    out = folder / "run"
    for argv, words in [
        ([], "--data"),
        (["--data", folder / "none"], "ptb.train.txt"),
        (["--data", folder, "--mode", "bp"], "'bp'"),
        (["--data", folder, "--batch", 5000], "--batch 5000"),
        (["--sample", 3], "--out"),
        (["--sample", 3, "--out", folder], "nothing to sample"),
    ]:
        with pytest.raises(SystemExit) as ended:
            run(module, *argv)
        assert ended.value.code == 2
        assert words in capsys.readouterr().err
    run(module, *SMALL, "--data", folder, "--updates", 2, "--out", out)
    capsys.readouterr()
    for other, argv, words in [
        (module, [*SMALL, "--data", folder, "--out", out], "holds a run already"),
        (word_language_model, ["--sample", 3, "--out", out], "is of char_language_model"),
    ]:
        with pytest.raises(SystemExit):
            run(other, *argv)
        assert words in capsys.readouterr().err
    (out / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(SystemExit):
        run(module, "--sample", 3, "--out", out)
    assert "unreadable checkpoint" in capsys.readouterr().err
