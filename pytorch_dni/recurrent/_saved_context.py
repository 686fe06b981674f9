"""Contexts of windows in checkpoints."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..context import Context


def saved_context(value: Any, device: torch.device) -> Context | None:
    """Return a context that was saved.

    Raises:
        TypeError: It is none.
    """
    if value is None:
        return None
    if not isinstance(value, Tensor) or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{value!r} is no context")
    return Context(value.to(device))
