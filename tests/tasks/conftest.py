import random

import pytest

from tasks import output_folder


@pytest.fixture(autouse=True)
def _runs(tmp_path_factory, monkeypatch):
    """Keep the folders that programs make by themselves out of the repository."""
    monkeypatch.setattr(output_folder, "RUNS", tmp_path_factory.mktemp("made") / "runs")


@pytest.fixture
def corpus(tmp_path):
    """Return a folder with a small text in three files, as a language model expects them."""
    words, draw = ["the", "cat", "sat", "on", "a", "mat", "<unk>", "N"], random.Random(0)
    for split, lines in (("train", 80), ("valid", 30), ("test", 30)):
        text = "\n".join(
            " ".join(draw.choices(words, [9, 5, 3, 2, 1, 1, 1, 1], k=6)) for _ in range(lines)
        )
        (tmp_path / f"ptb.{split}.txt").write_text(text + "\n")
    return tmp_path
