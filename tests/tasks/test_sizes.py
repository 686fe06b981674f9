"""Sizes that do not fit into memory, and absurd ones, are errors in one line."""

import pytest
import torch

from tasks import (
    argmax_task,
    audit,
    char_transformer,
    copy_task,
    mnist_pipeline,
    recall_task,
    regression,
    training_run,
    two_clocks,
    word_language_model,
)
from tasks.errors import memory_reason
from tests.support.digits import write_digits
from tests.support.programs import fails, run

HUGE = 10**12
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 80 bytes."


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError(NO_MEMORY), "out of memory: 80 bytes were needed at once"),
        (
            RuntimeError("not enough memory: you tried to allocate 64000000000000 bytes."),
            "out of memory: 64 TB were needed at once",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
            "out of memory: 2.00 GiB were needed at once",
        ),
        (RuntimeError("Storage size calculation overflowed with sizes=[1]"), "out of memory"),
        (MemoryError(), "out of memory"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (OverflowError("math range error"), None),
    ],
)
def test_a_lack_of_memory_is_known(error, reason):
    assert memory_reason(error) == reason


@pytest.mark.parametrize(
    ("module", "argv", "words"),
    [
        (copy_task, ["--hidden", HUGE], "out of memory"),
        (copy_task, ["--bits", HUGE], "out of memory"),
        (copy_task, ["--batch", HUGE], "out of memory"),
        (copy_task, ["--synthesizer-hidden", HUGE, "--mode", "cdni"], "out of memory"),
        (copy_task, ["--length", HUGE], "at most 10,000"),
        (copy_task, ["--depth", HUGE], "at most 1,000"),
        (copy_task, ["--hidden", 10**20], "at most 1e+12"),
        (copy_task, ["--hidden", -3], "of at least 1"),
        (copy_task, ["--hidden", 0], "of at least 1"),
        (copy_task, ["--lr", "nan"], "above 0"),
        (copy_task, ["--lr", "1e300"], "at most 1e+12"),
        (copy_task, ["--grad-lr", "-1"], "above 0"),
        (copy_task, ["--threads", 10**6], "--threads"),
        (argmax_task, ["--digits", HUGE], "at most 1,000"),
        (recall_task, ["--hidden", HUGE], "out of memory"),
        (recall_task, ["--start", HUGE], "out of memory"),
        (recall_task, ["--batch", HUGE], "out of memory"),
        (recall_task, ["--window", HUGE, "--mode", "cdni"], "out of memory"),
        (recall_task, ["--seconds", "inf"], "at most"),
        (regression, ["--hidden", HUGE], "out of memory"),
        (regression, ["--inputs", HUGE], "out of memory"),
        (regression, ["--teacher-depth", HUGE], "--teacher-depth"),
        (two_clocks, ["--timeout", "1e300"], "--timeout"),
        (mnist_pipeline, ["--hidden", HUGE], "out of memory"),
        (mnist_pipeline, ["--ranks", HUGE], "--ranks"),
        (mnist_pipeline, ["--steps", 5, "--epochs", 5], "exclude each other"),
    ],
)
def test_sizes_are_errors_in_one_line(module, argv, words, capsys):
    message = fails(capsys, module, *argv)
    assert message.startswith(f"python -m {module.__name__}: error: ")
    assert words in message
    assert "out of memory" not in words or "give a smaller --" in message


@pytest.mark.parametrize("module", [char_transformer, word_language_model])
def test_sizes_of_language_models_are_errors_in_one_line(module, corpus, capsys):
    argv = ["--data", corpus, "--hidden", 24 * 10**10]
    assert "out of memory" in fails(capsys, module, *argv)
    if module is word_language_model:
        assert "too large for a text" in fails(capsys, module, "--data", corpus, "--batch", HUGE)


@pytest.mark.parametrize("module", [audit, two_clocks])
def test_sizes_of_programs_on_digits_are_errors_in_one_line(module, tmp_path, capsys):
    data = write_digits(tmp_path)
    assert "out of memory" in fails(capsys, module, "--data", data, "--hidden", HUGE, "--batch", 4)


def test_memory_that_ends_while_training_is_one_line(tmp_path, capsys, monkeypatch):
    def step(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(training_run.TrainingRun, "_train_step", step)
    message = fails(capsys, copy_task, "--device", "cpu")
    assert message.endswith(
        "2.00 GiB were needed at once: give a smaller --batch, --hidden, --depth, --length, "
        "--synthesizer-hidden or --bits"
    )


def test_other_errors_are_shown_in_full(monkeypatch):
    def step(self, batch):
        raise RuntimeError("a mistake in the program")

    monkeypatch.setattr(training_run.TrainingRun, "_train_step", step)
    with pytest.raises(RuntimeError, match="a mistake"):
        run(copy_task, "--device", "cpu")
