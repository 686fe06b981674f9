"""Rules: how the per-example gradients of a layer follow from its inputs and output gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from torch import nn, Tensor

from ..errors import describe, DNIError
from ._forms import GradientForm


class LayerCall(NamedTuple):
    """One call of a layer, when the gradient of its output is known.

    Attributes:
        name: Qualified name of the layer.
        module: The layer.
        args: Its arguments, without their graph.
        kwargs: Its keywords, without their graph.
        output_grads: Gradients of the floating-point tensors that it returned, in their order;
            those of tensors that the loss does not depend on are zero.
        wanted: Names of its parameters that require a gradient, such as ``"weight"``.
        batch_dim: The dimension of examples in its tensors.
        remembered: What the rule's :meth:`LayerRule.remember_output` returned.
    """

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output_grads: tuple[Tensor, ...]
    wanted: frozenset[str]
    batch_dim: int
    remembered: Any = None

    @property
    def input(self) -> Tensor:
        """The first argument, with the examples in its first dimension."""
        first = self.args[0] if self.args else next(iter(self.kwargs.values()))
        return self.examples_first(first)

    @property
    def output_grad(self) -> Tensor:
        """The first output gradient, with the examples in its first dimension."""
        return self.examples_first(self.output_grads[0])

    def examples_first(self, tensor: Tensor) -> Tensor:
        """Return a tensor with the examples in its first dimension."""
        return tensor.movedim(self.batch_dim, 0) if self.batch_dim else tensor


#: What a rule returns for a parameter: its gradients ``(batch, *shape)``, or a form of them.
Gradients: TypeAlias = Tensor | GradientForm
RuleFunction: TypeAlias = Callable[[LayerCall], Mapping[str, Gradients]]


class LayerRule(ABC):
    """How the per-example gradients of a kind of layer are computed.

    Attributes:
        depends_on_state: Whether the rule is asked in each forward pass what it needs to remember,
            and whether the layer has per-example gradients.
    """

    depends_on_state = True

    def check(self, name: str, module: nn.Module) -> None:  # noqa: B027
        """Raise :class:`DNIError` where the layer has no per-example gradients."""

    def parameters(self, module: nn.Module) -> Mapping[str, Tensor]:
        """Return the parameters whose gradients the rule computes, by name."""
        return dict(module.named_parameters(recurse=False, remove_duplicate=False))

    def remember(self, module: nn.Module) -> Any:
        """Return what the rule needs from before the forward pass, besides the inputs."""
        return None

    def remember_output(self, remembered: Any, output: Any) -> Any:
        """Return what the rule needs from the forward pass, besides the inputs."""
        return remembered

    @abstractmethod
    def gradients(self, call: LayerCall) -> Mapping[str, Gradients]:
        """Return the gradients by the parameter's name, of those that are wanted or of all."""


class FunctionRule(LayerRule):
    """A rule that the user has registered as a function."""

    depends_on_state = False

    def __init__(self, function: RuleFunction) -> None:
        self._function = function

    def gradients(self, call: LayerCall) -> Mapping[str, Gradients]:
        """Return the gradients by the parameter's name, of those that are wanted or of all."""
        found = self._function(call)
        if not isinstance(found, Mapping) or not call.wanted <= set(found):
            raise DNIError(
                f"the rule registered for {describe(call.name, call.module)} must return a mapping "
                f"with the gradients of {', '.join(sorted(call.wanted))}, got "
                f"{sorted(found) if isinstance(found, Mapping) else type(found).__name__}"
            )
        return found


class RuleHandle:
    """Removes a registered rule.

    Args:
        rules: The registered rules, by type of module.
        kind: The type.
        rule: Its rule.
    """

    def __init__(
        self, rules: dict[type[nn.Module], LayerRule], kind: type[nn.Module], rule: LayerRule
    ) -> None:
        self._rules, self._kind, self._rule = rules, kind, rule

    def remove(self) -> None:
        """Remove the rule; contexts that have been entered go on using it."""
        if self._rules.get(self._kind) is self._rule:
            del self._rules[self._kind]

    def __enter__(self) -> RuleHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


_registered: dict[type[nn.Module], LayerRule] = {}


def register_rule(kind: type[nn.Module], rule: RuleFunction | LayerRule) -> RuleHandle:
    """Register how per-example gradients of a type of layer, and of types derived, are computed.

    It takes the place of a rule of the library, or of :func:`torch.func.vmap` over the layer.

    Args:
        kind: The type of the layer.
        rule: A function that takes a :class:`LayerCall` and returns the gradients ``(batch,
            *shape)`` of the layer's own parameters by name; or a :class:`LayerRule`.

    Returns:
        A handle whose ``remove()`` ends it; it is a context manager too.

    Raises:
        DNIError: An argument is wrong, or the type has a registered rule already.

    Example::

        register_rule(Scale, lambda call: {"factor": (call.input * call.output_grad).sum(1)})
    """
    if not isinstance(kind, type) or not issubclass(kind, nn.Module):
        raise DNIError(f"a rule is registered for a type of module, got {kind!r}")
    if kind in _registered:
        raise DNIError(f"{kind.__name__} has a registered rule: call remove() of its handle")
    if not isinstance(rule, LayerRule) and not callable(rule):
        raise DNIError(f"a rule must be a function or a LayerRule, got {rule!r}")
    made = rule if isinstance(rule, LayerRule) else FunctionRule(rule)
    _registered[kind] = made
    return RuleHandle(_registered, kind, made)


def registered_rule(module: nn.Module) -> LayerRule | None:
    """Return the rule that is registered for a module's type or the nearest base of it."""
    for kind in type(module).__mro__:
        if kind in _registered:
            return _registered[kind]
    return None
