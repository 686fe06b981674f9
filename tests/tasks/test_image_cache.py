"""A cache keeps decoded images, is private, and is never taken for other images."""

import io
import os
import stat

import pytest
import torch

from tasks.errors import TaskError
from tasks.image_cache import read_images
from tasks.image_files import ClassFolders
from tests.support import images


@pytest.fixture
def source(tmp_path):
    return ClassFolders(images.write_folders(tmp_path / "data", images.make_images()))


def tensors(data):
    return [*data.training, *data.test]


def test_a_cache_gives_the_same_images_without_decoding(source, tmp_path, monkeypatch):
    cache = tmp_path / "cache.pt"
    first = read_images(source, cache)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    monkeypatch.setattr(source, "read", lambda: pytest.fail("decoded again"))
    again = read_images(source, cache)
    assert first.classes == again.classes == images.CLASSES
    assert all(map(torch.equal, tensors(first), tensors(again)))


def test_a_cache_of_other_images_is_refused(source, tmp_path):
    cache = tmp_path / "cache.pt"
    read_images(source, cache)
    content = cache.read_bytes()
    other = ClassFolders(images.write_folders(tmp_path / "other", images.make_images(seed=1)))
    with pytest.raises(TaskError, match="holds other images"):
        read_images(other, cache)
    (source.root / "train" / "bee" / "0003.png").unlink()
    with pytest.raises(TaskError, match="holds other images"):
        read_images(source, cache)
    assert cache.read_bytes() == content


def test_a_copy_of_the_files_has_the_same_cache(source, tmp_path):
    read_images(source, tmp_path / "cache.pt")
    copied = ClassFolders(images.write_folders(tmp_path / "copied", images.make_images()))
    read_images(copied, tmp_path / "cache.pt")


def test_files_that_are_no_cache_are_refused_and_kept(source, tmp_path):
    cache = tmp_path / "cache.pt"
    read_images(source, cache)
    state = torch.load(cache, weights_only=True)
    for change in (
        {"format": "another"},
        {"classes": []},
        {"classes": None},
        {"test_labels": state["test_labels"] + 3},
        {"test_labels": state["test_labels"].float()},
        {"test_images": state["test_images"][:-1]},
        {"training_images": [1]},
        {"test_images": state["test_images"][:0], "test_labels": state["test_labels"][:0]},
        {"test_labels": torch.tensor(1)},
        {"test_labels": state["test_labels"] - 1},
        {"more": 1},
    ):
        torch.save({**state, **change}, cache)
        content = cache.read_bytes()
        with pytest.raises(TaskError, match="holds no decoded images"):
            read_images(source, cache)
        assert cache.read_bytes() == content
    unsafe = io.BytesIO()
    torch.save({"format": print}, unsafe)
    for content in (b"", b"nonsense", unsafe.getvalue()):
        cache.write_bytes(content)
        with pytest.raises(TaskError, match="unreadable --cache"):
            read_images(source, cache)
        assert cache.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_an_error(source, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(source, "read", lambda: pytest.fail("decoded in vain"))
        with pytest.raises(TaskError, match="cannot write to --cache"):
            read_images(source, tmp_path / "none" / "cache.pt")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TaskError, match="No space left"):
        read_images(source, tmp_path / "cache.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
