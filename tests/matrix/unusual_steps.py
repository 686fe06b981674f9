"""Unusual batches and types, losses that are not finite, and steps that break off."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from tests.matrix.row import PyTorchError, Row
from tests.matrix.session import Session
from tests.matrix.training import batches, mlp, sgd, simple, steps, vectors


def _nan_loss(net: Any, opt: torch.optim.Optimizer) -> None:
    """A loss of NaN in the second step, which is left out, as people do."""
    for index, (x, y) in enumerate(batches(6)):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y) * (math.nan if index == 1 else 1.0)
        loss.backward()
        if loss.isfinite():
            opt.step()


class _StopError(Exception):
    pass


def _stop(*_: Any) -> None:
    raise _StopError


def _stop_in_backward(module: nn.Module, args: Any, output: Tensor) -> None:
    output.register_hook(_stop)


def _interrupted(session: Session) -> None:
    """Exceptions in the forward pass and in the backward pass, and training on."""
    network = mlp(normalised=False)
    opt = sgd(network)
    net = session.wrap(network, opt)
    for index, (x, y) in enumerate(batches(8)):
        opt.zero_grad()
        handle = None
        if index in (2, 4):
            hook = _stop if index == 2 else _stop_in_backward
            handle = network[2].register_forward_hook(hook)
        try:
            F.cross_entropy(net(x), y).backward()
            opt.step()
        except _StopError:
            pass
        if handle is not None:
            handle.remove()


def _batch(size: int, dtype: torch.dtype = torch.float32, normalised: bool = True) -> Any:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out.float(), y, reduction="sum")

    return steps(lambda: mlp(normalised=normalised).to(dtype), vectors(size, dtype=dtype), loss)


ROWS = [
    Row("NaN loss", simple(_nan_loss)),
    Row("exceptions in the middle", _interrupted),
    Row("batch of 0", _batch(0, normalised=False)),
    Row("batch of 1", _batch(1, normalised=False)),
    Row(
        "batch of 1, BatchNorm",
        _batch(1),
        expected=PyTorchError("Expected more than 1 value per channel when training"),
    ),
    Row("half", _batch(8, torch.float16, normalised=False)),
    Row("bfloat16", _batch(8, torch.bfloat16, normalised=False)),
    Row("double", _batch(8, torch.float64)),
]
