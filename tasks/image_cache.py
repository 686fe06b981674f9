"""A file that keeps decoded images, so that later runs need not decode them again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import files
from .errors import TaskError
from .image_data import ImageData, ImageSet
from .image_files import ImageSource, SIZE

_FORMAT = "decoded images, version 1"
_TENSORS = ("training_images", "training_labels", "test_images", "test_labels")


def read_images(source: ImageSource, cache: Path | None) -> ImageData:
    """Return the images of a cache or, if there is none, of their files; then keep them.

    Args:
        source: The files.
        cache: File of the cache, which only its owner may read; None for no cache.

    Raises:
        TaskError: The images cannot be read, the cache cannot be written, or it is of other files.
    """
    if cache is None:
        return source.read()
    if cache.exists():
        return _load(cache, source)
    with files.reporting_write_errors(cache, "--cache"), tempfile.TemporaryFile(dir=cache.parent):
        pass  # an error is reported before the images are decoded
    data = source.read()
    tensors = dict(zip(_TENSORS, (*data.training, *data.test), strict=True))
    state = {
        "format": _FORMAT,
        "fingerprint": source.fingerprint(),
        "classes": data.classes,
        **tensors,
    }
    with files.reporting_write_errors(cache, "--cache"):
        files.save_checkpoint(cache, state, private=True)
    return data


def _load(cache: Path, source: ImageSource) -> ImageData:
    advice = "delete it, or name another file"
    state = files.load_tensors(cache, "cpu", "--cache")
    if not _is_cache(state):
        raise TaskError(f"--cache {cache} holds no decoded images: {advice}")
    if state["fingerprint"] != source.fingerprint():
        raise TaskError(f"--cache {cache} holds other images than {source.root}: {advice}")
    tensors = [state[name] for name in _TENSORS]
    return ImageData(state["classes"], ImageSet(*tensors[:2]), ImageSet(*tensors[2:]))


def _is_cache(state: Any) -> bool:
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        return False
    if {*state} != {"format", "fingerprint", "classes", *_TENSORS}:
        return False
    classes, tensors = state["classes"], [state[name] for name in _TENSORS]
    if not isinstance(classes, list) or not all(torch.is_tensor(tensor) for tensor in tensors):
        return False
    pairs = (tensors[:2], tensors[2:])
    return all(_are_images(images, labels, len(classes)) for images, labels in pairs)


def _are_images(images: Tensor, labels: Tensor, classes: int) -> bool:
    if labels.dim() != 1 or not len(labels):
        return False
    return (
        images.shape == (len(labels), 3, SIZE, SIZE)
        and (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        and bool((labels >= 0).all())
        and bool((labels < classes).all())
    )
