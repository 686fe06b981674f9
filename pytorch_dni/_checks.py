"""What the wrapper checks of its arguments before anything is changed."""

from torch import nn
from torch.optim import Optimizer

from ._hooks import ModuleHook
from .errors import describe, DNIError


def check_network(network: nn.Module, wrapper: type[nn.Module]) -> None:
    """Raise :class:`DNIError` where the network is none, or is wrapped already."""
    if not isinstance(network, nn.Module):
        raise DNIError(f"network must be a module, not {type(network).__name__}")
    for name, module in network.named_modules():
        if isinstance(module, wrapper) or any(
            isinstance(hook, ModuleHook) for hook in module._forward_hooks.values()
        ):
            raise DNIError(f"{describe(name, module)} is wrapped in DNI already: unwrap() it first")


def check_optim(network: nn.Module, optim: Optimizer | None) -> None:
    """Raise :class:`DNIError` where the optimizer is not the network's."""
    if optim is None:
        return
    if not isinstance(optim, Optimizer):
        raise DNIError(f"optim must be an optimizer or None, not {type(optim).__name__}")
    own = {id(parameter) for parameter in network.parameters()}
    if not any(id(p) in own for group in optim.param_groups for p in group["params"]):
        raise DNIError(
            f"optim ({type(optim).__name__}) holds no parameter of the network "
            f"({type(network).__name__}): build it from network.parameters()"
        )


def check_lambda(value: object) -> None:
    """Raise :class:`DNIError` where this is no share of the true gradient."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    if not callable(value) and not number:
        raise DNIError(f"bp_lambda must be a number from 0 to 1, or a function, got {value!r}")
