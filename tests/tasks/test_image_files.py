"""Images are read from torchvision's files, from folders, and from an archive of folders."""

import pytest
import torch

from tasks import cifar10
from tasks.image_files import ARCHIVE, find_source
from tests.support import images
from tests.support.programs import fails


def assert_holds(data, expected):
    assert data.classes == images.CLASSES
    for found, (pixels, labels) in zip((data.training, data.test), expected, strict=True):
        assert found.images.dtype == torch.uint8
        assert torch.equal(found.images, pixels)
        assert torch.equal(found.labels, labels)


@pytest.mark.parametrize("subfolder", ["", "cifar10"])
@pytest.mark.parametrize("form", ["folders", "archive", "archive with ./", "torchvision"])
def test_all_forms_give_the_same_images(form, subfolder, tmp_path, monkeypatch):
    made, root = images.make_images(), tmp_path / subfolder
    if form == "folders":
        images.write_folders(root, made)
    elif form == "torchvision":
        images.write_torchvision_files(root, made, monkeypatch)
    else:
        images.write_archive(root / ARCHIVE, made, "./" if "./" in form else "")
    before = sorted(tmp_path.rglob("*"))
    assert_holds(find_source(tmp_path, False).read(), images.expected_sets(made))
    assert sorted(tmp_path.rglob("*")) == before


def test_other_files_and_forms_of_images_are_no_obstacle(tmp_path):
    made = images.make_images()
    expected = images.expected_sets(made)
    images.write_folders(tmp_path, made)
    ant = tmp_path / "train" / "ant"
    for name in ("._0000.png", ".hidden.jpg", "readme.txt"):
        (ant / name).write_bytes(b"no image")
    (ant / "folder.png").mkdir()
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / ".cache" / "0000.png").write_bytes(b"no image")
    (ant / "0000.png").rename(ant / "0000.PNG")
    grey = images.Image.new("L", (32, 32), 77)
    grey.save(ant / "0001.png")
    expected[0][0][1] = 77
    assert_holds(find_source(tmp_path, False).read(), expected)


def test_jpeg_images_are_decoded(tmp_path):
    made = {key: image // 64 * 64 for key, image in images.make_images().items()}
    for (_, name, _), image in made.items():
        image[:] = torch.tensor([40, 90, 160]).roll(images.CLASSES.index(name)).view(3, 1, 1)
    images.write_folders(tmp_path, made, "jpg")
    data = find_source(tmp_path, False).read()
    for found, (pixels, _) in zip(data[1:], images.expected_sets(made), strict=True):
        assert (found.images.int() - pixels).abs().max() <= 4


def test_missing_data_are_an_error_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DNI_DATA", raising=False)
    assert "give --data DIR" in fails(capsys, cifar10)
    message = fails(capsys, cifar10, "--data", tmp_path)
    assert f"no CIFAR-10 in --data {tmp_path}" in message
    assert "--download" in message
    assert "no CIFAR-10" in fails(capsys, cifar10, "--data", tmp_path / "none")
    (tmp_path / "train").mkdir()
    assert "test/ with a folder" in fails(capsys, cifar10, "--data", tmp_path)
    (tmp_path / "test").mkdir()
    assert "two or more classes in train" in fails(capsys, cifar10, "--data", tmp_path)


def test_folders_that_do_not_fit_are_an_error_in_one_line(tmp_path, capsys):
    def message(spoil):
        root = images.write_folders(tmp_path / spoil.__name__, images.make_images())
        spoil(root)
        return fails(capsys, cifar10, "--data", root, "--batch", 2, "--device", "cpu")

    def only_in_training(root):
        (root / "test" / "bee").rename(root / "bee")

    def large(root):
        images.Image.new("RGB", (33, 32)).save(root / "test" / "bee" / "0001.png")

    def damaged(root):
        path = root / "train" / "cow" / "0002.png"
        path.write_bytes(path.read_bytes()[:100])

    assert "only of: bee" in message(only_in_training)
    assert "0001.png has 33 x 32 pixels" in message(large)
    assert "unreadable image" in message(damaged)


def test_damaged_archives_are_an_error_in_one_line(tmp_path, capsys):
    path = images.write_archive(tmp_path / ARCHIVE, images.make_images())
    content = path.read_bytes()
    middle = len(content) // 2
    damaged = content[:middle] + bytes(100) + content[middle + 100 :]
    for broken in (b"", b"no archive", content[:middle], content[:-3000], damaged):
        path.write_bytes(broken)
        line = fails(capsys, cifar10, "--data", tmp_path)
        assert "unreadable" in line
        assert str(path) in line


def test_damaged_files_of_torchvision_are_an_error_in_one_line(tmp_path, capsys, monkeypatch):
    images.write_torchvision_files(tmp_path, images.make_images(), monkeypatch)
    with (tmp_path / "cifar-10-batches-py" / "test_batch").open("ab") as file:
        file.write(b"more")
    line = fails(capsys, cifar10, "--data", tmp_path)
    assert f"no CIFAR-10 in --data {tmp_path}" in line
    assert "corrupted" in line


def test_a_failed_download_is_an_error_in_one_line(tmp_path, capsys, monkeypatch):
    from tasks.torchvision_import import torchvision

    def fail(self):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", fail)
    assert "no network" in fails(capsys, cifar10, "--data", tmp_path, "--download")
