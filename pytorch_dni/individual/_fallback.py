"""The rule of layers that the library does not know: ``torch.func.vmap`` over the layer alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn, Tensor

from .._tree import floating_tensors, map_tensors, tensors
from ..errors import describe, DNIError
from ._rules import Gradients, LayerCall, LayerRule
from ._torch import exchange_parameters


class VmapRule(LayerRule):
    """Runs a layer again, on each example alone, and differentiates it.

    The examples are one dimension of those arguments in which it has the size of the batch; other
    arguments are the same for all examples. What the layer returned is compared with what it
    returns for each example alone.

    Args:
        parameters: The layer's parameters: the module that holds each, and its name there.
        pause: Called with 1 before the layer is run again, and with -1 after it.
    """

    def __init__(
        self,
        parameters: Mapping[str, tuple[nn.Module, str]],
        forward: Callable[..., Any],
        pause: Callable[[int], None],
    ) -> None:
        self._owners, self._forward, self._pause = parameters, forward, pause

    def parameters(self, module: nn.Module) -> Mapping[str, Tensor]:
        """Return the parameters whose gradients the rule computes, by name."""
        return {local: getattr(*owner) for local, owner in self._owners.items()}

    def remember_output(self, remembered: Any, output: Any) -> list[Tensor | None]:
        """Return copies of the tensors that the layer returned, None for those without gradient."""
        return [
            tensor.detach().clone() if tensor.requires_grad else None
            for tensor in floating_tensors(output)
        ]

    def gradients(self, call: LayerCall) -> Mapping[str, Gradients]:
        """Return the gradients by the parameter's name.

        Raises:
            DNIError: The layer cannot be run on each example alone.
        """
        wanted = {name: getattr(*self._owners[name]).detach() for name in sorted(call.wanted)}
        self._pause(1)
        try:
            gradients, outputs = self._over_examples(call, wanted)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()
            raise _unfit(call, reason[0] if reason else type(error).__name__) from error
        finally:
            self._pause(-1)
        originals = [original for original in call.remembered if original is not None]
        for output, original in zip(outputs, originals, strict=True):
            if output.shape != original.shape or not torch.allclose(
                output, original.to(output), **_tolerance(original), equal_nan=True
            ):
                raise _unfit(
                    call,
                    "it returns something else for an example alone than in the batch: it mixes "
                    "examples, draws random numbers, or has another dimension of examples",
                )
        return gradients

    def _over_examples(
        self, call: LayerCall, wanted: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        dim, size = call.batch_dim, call.output_grads[0].shape[call.batch_dim]
        given = tensors((call.args, call.kwargs))
        mapped = [t.dim() > dim and t.shape[dim] == size for t in given]
        in_dims = [dim if is_mapped else None for is_mapped in mapped]

        def of_example(
            inputs: list[Tensor], grads: list[Tensor]
        ) -> tuple[dict[str, Tensor], list[Tensor]]:
            whole = [t.unsqueeze(dim) if m else t for t, m in zip(inputs, mapped, strict=True)]
            run = _Run(self._forward, self._owners, call, whole, dim)
            outputs, pullback, *_ = torch.func.vjp(run, wanted)
            return pullback(grads)[0], outputs

        over_examples = torch.func.vmap(
            of_example, in_dims=(in_dims, dim), out_dims=(0, dim), randomness="error"
        )
        found: tuple[dict[str, Tensor], list[Tensor]]
        with torch.enable_grad():
            found = over_examples(given, [*call.output_grads])
        return found


class _Run:
    """Runs a layer on one example, as a function of its parameters."""

    def __init__(
        self,
        forward: Callable[..., Any],
        owners: Mapping[str, tuple[nn.Module, str]],
        call: LayerCall,
        inputs: list[Tensor],
        dim: int,
    ) -> None:
        self._forward, self._owners, self._call = forward, owners, call
        self._inputs, self._dim = inputs, dim

    def __call__(self, parameters: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the tensors of the layer's output that require a gradient."""
        remaining = iter(self._inputs)
        args, kwargs = map_tensors((self._call.args, self._call.kwargs), lambda _: next(remaining))
        replaced = []
        try:
            for local, tensor in parameters.items():
                owner, name = self._owners[local]
                replaced.append((owner, exchange_parameters(owner, {name: tensor})))
            output = self._forward(*args, **kwargs)
        finally:
            for owner, own in replaced:
                exchange_parameters(owner, own)
        return [
            tensor.squeeze(self._dim)
            for tensor, original in zip(
                floating_tensors(output), self._call.remembered, strict=True
            )
            if original is not None
        ]


def _tolerance(tensor: Tensor) -> dict[str, float]:
    if tensor.dtype == torch.float64:
        return {"rtol": 1e-6, "atol": 1e-8}
    exact = tensor.dtype == torch.float32
    return {"rtol": 1e-3, "atol": 1e-4} if exact else {"rtol": 0.1, "atol": 0.05}


def _unfit(call: LayerCall, reason: str) -> DNIError:
    return DNIError(
        f"{describe(call.name, call.module)} cannot be run on each example alone, by "
        f"torch.func.vmap, for its per-example gradients: {reason}. Register "
        "a rule for its type (register_rule), or freeze its own parameters"
    )
