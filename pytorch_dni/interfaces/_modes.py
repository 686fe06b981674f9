"""The modes of PyTorch in which synthesizers run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch
from torch import Tensor

_UNCHANGED = nullcontext()
_has_autocast = cache(torch.amp.is_autocast_available)  # the meta device has none


def synthesizer_mode(device: str) -> AbstractContextManager[object]:
    """Return a scope without gradients and without autocast on a type of device.

    Synthesizers are small and keep their own type: autocast would round what they regress to.
    """
    if _has_autocast(device) and torch.is_autocast_enabled(device):
        return _without_autocast(device)
    return torch.no_grad() if torch.is_grad_enabled() else _UNCHANGED


def detached(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor without its graph and in a type: itself, if it is so already.

    The calls that would return the same tensor again take as long as a small kernel.
    """
    if tensor.requires_grad:
        tensor = tensor.detach()
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


@contextmanager
def _without_autocast(device: str) -> Iterator[None]:
    with torch.no_grad(), torch.autocast(device, enabled=False):
        yield
