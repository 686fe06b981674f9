"""CIFAR-10 from files: those of torchvision, folders of images, or an archive of such folders."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .errors import TaskError
from .image_data import ImageData, ImageSet

SIZE = 32  # height and width of the images
ARCHIVE = "cifar10-jpeg.tar.gz"
_TRAINING, _TEST = "train", "test"
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_TORCHVISION_FOLDER = "cifar-10-batches-py"  # torchvision's own name
_EXPECTED = (
    f"expected are {_TORCHVISION_FOLDER}/, or {_TRAINING}/ and {_TEST}/ with a folder of images "
    f"for each class, or {ARCHIVE}, there or in its folder cifar10/"
)


class ImageName(NamedTuple):
    """Where an image belongs.

    Attributes:
        split: ``"train"`` or ``"test"``.
        class_name: Name of its class.
        file: Name of its file.
    """

    split: str
    class_name: str
    file: str


class ImageSource(ABC):
    """Files that hold a data set; its images have the type uint8.

    Args:
        root: Folder or archive that holds them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def files(self) -> Iterable[Path]:
        """Return the files."""

    @abstractmethod
    def read(self) -> ImageData:
        """Read and decode all images.

        Raises:
            TaskError: An image cannot be read, or the sets do not fit each other.
        """

    def fingerprint(self) -> str:
        """Return a text that differs if names or sizes of the files differ."""
        hashed = hashlib.sha256()
        for path in sorted(self.files()):
            name = path.relative_to(self.root).as_posix()
            hashed.update(f"{name} {path.stat().st_size}\n".encode())
        return hashed.hexdigest()


class TorchvisionFiles(ImageSource):
    """The files that torchvision downloads."""

    def files(self) -> Iterable[Path]:
        """Return the batches and the names of the classes."""
        return (self.root / _TORCHVISION_FOLDER).glob("*batch*")

    def read(self) -> ImageData:
        """Read both sets; torchvision checks the files."""
        sets = []
        for is_training in (True, False):
            found = _torchvision_set(self.root, is_training, download=False)
            images = _channels_first(torch.from_numpy(found.data))
            sets.append(ImageSet(images, torch.tensor(found.targets)))
        return ImageData(list(found.classes), *sets)


class ClassFolders(ImageSource):
    """The folders ``train`` and ``test``, with a folder of images for each class."""

    def files(self) -> Iterable[Path]:
        """Return the images."""
        return self._paths().values()

    def read(self) -> ImageData:
        """Decode all images."""
        paths, pixels = self._paths(), dict[ImageName, bytes]()
        bar = tqdm(paths.items(), desc="images", unit="image", delay=1, dynamic_ncols=True)
        with bar:
            for name, path in bar:
                pixels[name] = _decode(path.read_bytes(), str(path))
        return _assemble(pixels, self.root)

    def _paths(self) -> dict[ImageName, Path]:
        found = (
            (_image_name(path.relative_to(self.root).parts), path)
            for split in (_TRAINING, _TEST)
            for path in (self.root / split).glob("*/*")
        )
        return {name: path for name, path in found if name is not None and path.is_file()}


class Archive(ImageSource):
    """A compressed archive with the folders ``train`` and ``test``; it is not extracted."""

    def files(self) -> Iterable[Path]:
        """Return the archive."""
        return [self.root]

    def read(self) -> ImageData:
        """Decode all images straight from the archive."""
        pixels, size = dict[ImageName, bytes](), self.root.stat().st_size
        settings: dict[str, Any] = {"desc": self.root.name, "delay": 1, "dynamic_ncols": True}
        try:
            with (
                self.root.open("rb") as file,
                tqdm.wrapattr(file, "read", total=size, **settings) as counted,
                tarfile.open(fileobj=counted, mode="r:gz") as archive,
            ):
                for member in archive:
                    name = _image_name(PurePosixPath(member.name).parts)
                    if name is None or not member.isfile():
                        continue
                    content = archive.extractfile(member)
                    assert content is not None  # it is a file
                    pixels[name] = _decode(content.read(), f"{member.name} in {self.root}")
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise TaskError(f"unreadable archive {self.root}: {error}") from error
        return _assemble(pixels, self.root)


def find_source(folder: Path, download: bool) -> ImageSource:
    """Return the files of CIFAR-10 that a folder, or its folder ``cifar10``, holds.

    Args:
        folder: The folder.
        download: Whether to download them to the folder if they are missing.

    Raises:
        TaskError: They are missing, or the download failed.
    """
    source = _known_source(folder)
    if source is None and download:
        _torchvision_set(folder, True, download=True)
        source = _known_source(folder)
    if source is None:
        raise TaskError(f"no CIFAR-10 in --data {folder} (--download fetches it): {_EXPECTED}")
    return source


def _known_source(folder: Path) -> ImageSource | None:
    for root in (folder, folder / "cifar10"):
        if (root / _TORCHVISION_FOLDER).is_dir():
            return TorchvisionFiles(root)
        if (root / _TRAINING).is_dir() and (root / _TEST).is_dir():
            return ClassFolders(root)
        if (root / ARCHIVE).is_file():
            return Archive(root / ARCHIVE)
    return None


def _torchvision_set(root: Path, is_training: bool, download: bool) -> Any:
    # The import takes a second, and not all sources need it.
    from .torchvision_import import torchvision

    try:
        return torchvision.datasets.CIFAR10(str(root), train=is_training, download=download)
    except Exception as error:  # damaged files and failed downloads raise almost any exception
        raise TaskError(
            f"no CIFAR-10 in --data {root}: {error or 'its files are damaged'}"
        ) from error


def _image_name(parts: tuple[str, ...]) -> ImageName | None:
    """Return where a path belongs, given its parts; None if it is no path of an image."""
    if len(parts) != 3 or parts[0] not in (_TRAINING, _TEST):
        return None
    file = PurePosixPath(parts[2])
    hidden = any(part.startswith(".") for part in parts)
    return None if hidden or file.suffix.lower() not in _SUFFIXES else ImageName(*parts)


def _decode(content: bytes, name: str) -> bytes:
    """Return the pixels of an image, channels last."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            size = image.size
            pixels = image.convert("RGB").tobytes() if size == (SIZE, SIZE) else b""
    except Exception as error:  # damaged files raise almost any exception
        raise TaskError(f"unreadable image {name}: {error}") from error
    if not pixels:
        raise TaskError(
            f"image {name} has {size[0]} x {size[1]} pixels, and the task needs {SIZE} x {SIZE}"
        )
    return pixels


def _assemble(pixels: Mapping[ImageName, bytes], origin: Path) -> ImageData:
    """Return the data set of decoded images, ordered by class and name of the file."""
    names = sorted(pixels)
    classes: dict[str, list[str]] = {}
    for split in (_TRAINING, _TEST):
        classes[split] = sorted({name.class_name for name in names if name.split == split})
        if len(classes[split]) < 2:
            raise TaskError(f"{origin} needs images of two or more classes in {split}/<class>/")
    training, test = classes.values()
    if training != test:
        differing = ", ".join(sorted({*training} ^ {*test}))
        raise TaskError(f"{origin} has images for training or for testing only of: {differing}")
    sets = []
    for split in classes:
        own = [name for name in names if name.split == split]
        content = bytearray().join(pixels[name] for name in own)
        images = torch.frombuffer(content, dtype=torch.uint8).view(-1, SIZE, SIZE, 3)
        labels = torch.tensor([training.index(name.class_name) for name in own])
        sets.append(ImageSet(_channels_first(images), labels))
    return ImageData(training, *sets)


def _channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).contiguous()
