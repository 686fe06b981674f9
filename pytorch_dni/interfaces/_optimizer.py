"""The optimizer of the synthesizers, from the name, class or callable that the user gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from .._checks import check_number
from ..errors import SynthesizerError

OptimizerFactory = Callable[..., Optimizer]
OptimizerName = Literal["adam", "adamw", "rmsprop", "sgd"]

# Adam's usual momentum of 0.9 lags behind a target that moves with the network: halving it took
# three-layer MNIST with labels as context from 97.0 to 97.7 % after three epochs.
_ADAM: dict[str, Any] = {"betas": (0.5, 0.99)}
_NAMED: dict[str, tuple[OptimizerFactory, dict[str, Any]]] = {
    "adam": (torch.optim.Adam, _ADAM),
    "adamw": (torch.optim.AdamW, _ADAM),
    "rmsprop": (torch.optim.RMSprop, {}),
    "sgd": (torch.optim.SGD, {}),
}
# These can step all synthesizers in one kernel, on these devices.
_FUSED = ("adam", "adamw", "sgd")
_FUSED_ON = ("cpu", "cuda")
# Bounds of a learning rate that follows the network's, for warm-up and the end of a schedule.
_FOLLOWED = (1e-3, 3e-2)


def check_optim(optim: str | OptimizerFactory | None) -> None:
    """Raise :class:`SynthesizerError` where this is no name, class or callable, and not None."""
    if isinstance(optim, str) and optim not in _NAMED:
        raise SynthesizerError(f"grad_optim must be one of {', '.join(_NAMED)}, not {optim!r}")
    if not isinstance(optim, str) and optim is not None and not callable(optim):
        raise SynthesizerError(
            f"grad_optim must be a name, a class or a callable, not {type(optim).__name__}"
        )


def check_lr(lr: float | None) -> None:
    """Raise :class:`SynthesizerError` where this is no learning rate, and not None."""
    if lr is not None:
        check_number("grad_lr", lr, 0, error=SynthesizerError)


def build_optimizer(
    optim: str | OptimizerFactory, parameters: list[nn.Parameter], lr: float
) -> Optimizer:
    """Build an optimizer, fused where its kernel exists on the parameters' device.

    Raises:
        SynthesizerError: The user's callable raises, or returns something else.
    """
    if not isinstance(optim, str):
        return _own_optimizer(optim, parameters, lr)
    factory, options = _NAMED[optim]
    if optim in _FUSED and parameters[0].device.type in _FUSED_ON:
        options = {**options, "fused": True}
    return factory(parameters, lr=lr, **options)


def _own_optimizer(optim: OptimizerFactory, parameters: list[nn.Parameter], lr: float) -> Optimizer:
    try:
        built: object = optim(parameters, lr=lr)
    except Exception as reason:
        raise SynthesizerError(
            f"grad_optim raised {type(reason).__name__}: {reason}: it is called as "
            "grad_optim(parameters, lr=...)"
        ) from reason
    if not isinstance(built, Optimizer):
        raise SynthesizerError(
            f"grad_optim returned a {type(built).__name__}: it must return an optimizer"
        )
    return built


def followed_lr(network_optim: Optimizer | None, ratio: float) -> float | None:
    """Return a learning rate in proportion to the network's present one; None where it has none.

    Only optimizers that divide by a running size of the gradient (Adam and its kin) have learning
    rates of a comparable meaning.

    Args:
        network_optim: The network's optimizer, if it is known.
        ratio: The learning rate over the network's.
    """
    if network_optim is None or "betas" not in network_optim.defaults:
        return None
    largest = max(float(group["lr"]) for group in network_optim.param_groups)
    return min(max(ratio * largest, _FOLLOWED[0]), _FOLLOWED[1])
