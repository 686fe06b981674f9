"""Language models: symbols, windows of the text, and bits per symbol."""

import math

import pytest
import torch

from tasks import language_runs, language_training, word_language_model

SMALL = ["--batch", "4", "--hidden", "12", "--window", "3", "--synthesizer-hidden", "8"]
SMALL += ["--device", "cpu", "--every", "10"]


def test_texts_are_read_as_symbols(corpus):
    text = language_runs.PennTreebank(corpus, list)
    assert "".join(text.vocabulary[i] for i in text.splits["test"].tolist()) == (
        (corpus / "ptb.test.txt").read_text()
    )
    (corpus / "ptb.test.txt").write_text("the dog sat\n")
    words = language_runs.PennTreebank(corpus, word_language_model.split_into_words)
    symbols = [words.vocabulary[i] for i in words.splits["test"].tolist()]
    assert symbols == ["the", "<unk>", "sat", "<eos>"]
    streams = language_runs.split_into_streams(torch.arange(11), 3)
    assert streams.tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_bits_are_those_of_the_whole_validation_text(corpus):
    argv = [*SMALL, "--data", str(corpus)]
    parser = language_training.language_parser("char_language_model", "", hidden=8)
    args = parser.parse_args(argv)
    text = language_runs.PennTreebank(corpus, list)
    training = language_runs.LanguageRun("bp", 1, text, args)
    with torch.no_grad():
        for parameter in training.network.parameters():
            parameter.zero_()
    assert training.evaluate() == pytest.approx(math.log2(len(text.vocabulary)))


def test_windows_follow_each_other_through_the_text(corpus):
    args = language_training.language_parser("char_language_model", "", hidden=8).parse_args(
        [*SMALL, "--data", str(corpus)]
    )
    training = language_runs.LanguageRun("dni", 1, language_runs.PennTreebank(corpus, list), args)
    length = len(training._training_tokens)
    places, last = [], 0
    for _ in range(length):
        training.train_step()
        if training._position < last:
            assert last == length - 1
        elif last:
            assert training._position == min(last + 3, length - 1)
        places.append(training._position)
        last = training._position
    assert places.count(length - 1) >= 2
