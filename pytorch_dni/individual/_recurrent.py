"""The rule of recurrent layers: the gradients of their gates, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from ..errors import describe, DNIError
from ._forms import OuterProducts
from ._rules import Gradients, LayerCall, LayerRule


class _Map(NamedTuple):
    """A linear map of the layer, in the unrolled pass.

    Attributes:
        weight: Name of the weight.
        bias: Name of the bias.
        inputs: Its inputs, ``(batch, inputs)`` each.
        outputs: Its outputs, whose gradients are asked for.
    """

    weight: str
    bias: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class RecurrentRule(LayerRule):
    """Per-example gradients of ``RNN``, ``LSTM`` and ``GRU``.

    The layer is run again, step by step, to get the gradients of its gates; the weights multiply
    the inputs and states of all steps.
    """

    def check(self, name: str, module: nn.Module) -> None:
        """Raise :class:`DNIError` where the pass cannot be repeated."""
        recurrent: Any = module
        if _drops(recurrent) and next(recurrent.parameters()).device.type != "cpu":
            raise DNIError(
                f"{describe(name, module)} has dropout between its layers, whose random numbers "
                "cannot be repeated on this device: set dropout=0, or put a Dropout module "
                "between layers of your own"
            )

    def remember(self, module: nn.Module) -> Any:
        """Return the state of the random numbers, where dropout draws some."""
        return torch.get_rng_state() if _drops(module) else None

    def gradients(self, call: LayerCall) -> Mapping[str, Gradients]:
        """Return the gradients by the parameter's name."""
        module: Any = call.module
        input, hx = _inputs(call)
        with torch.random.fork_rng(devices=(), enabled=call.remembered is not None):
            if call.remembered is not None:
                torch.set_rng_state(call.remembered)
            with torch.enable_grad():
                maps, outputs = _Unrolled(module).run(input, hx)
        grads = _gradients(maps, outputs, call)
        forms: dict[str, Gradients] = {}
        for found, own in zip(maps, grads, strict=True):
            left = torch.stack(own, 2)[:, None]
            if found.weight in call.wanted:
                right = torch.stack(found.inputs, 1).detach()[:, None]
                shape = getattr(module, found.weight).shape
                forms[found.weight] = OuterProducts(left, right, shape)
            if found.bias in call.wanted:
                forms[found.bias] = left[:, 0].sum(2)
        return forms


def _drops(module: Any) -> bool:
    return bool(module.dropout and module.training and module.num_layers > 1)


def _inputs(call: LayerCall) -> tuple[Tensor, Any]:
    """Return the input ``(time, batch, features)`` and the state at the beginning."""
    module: Any = call.module
    given = [*call.args, *call.kwargs.values()]
    input, hx = given[0], given[1] if len(given) > 1 else None
    if not isinstance(input, Tensor) or input.dim() != 3:
        reason = (
            "a batch of sequences is needed"
            if isinstance(input, Tensor)
            else ("packed sequences are not supported: pad them")
        )
        raise DNIError(f"{describe(call.name, module)} got an input without examples; {reason}")
    dtype = module.weight_ih_l0.dtype
    input = (input.transpose(0, 1) if module.batch_first else input).to(dtype)
    return input, hx


def _gradients(maps: list[_Map], outputs: list[Tensor], call: LayerCall) -> list[list[Tensor]]:
    """Return the gradients of all outputs of each map."""
    asked = [output for found in maps for output in found.outputs]
    given = [
        grad.transpose(0, 1) if number == 0 and call.module.batch_first else grad
        for number, grad in enumerate(call.output_grads)
    ]
    given = [grad.to(output.dtype) for grad, output in zip(given, outputs, strict=True)]
    found = iter(torch.autograd.grad(outputs, asked, given, materialize_grads=True))
    return [[next(found) for _ in own.outputs] for own in maps]


class _Unrolled:
    """Runs a recurrent layer step by step, and notes its linear maps.

    Args:
        module: The layer.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._lstm = isinstance(module, nn.LSTM)
        self._maps: list[_Map] = []

    def run(self, input: Tensor, hx: Any) -> tuple[list[_Map], list[Tensor]]:
        """Return the maps and what the layer returns, as a list of tensors."""
        module = self._module
        directions = 2 if module.bidirectional else 1
        states = self._first_states(input, hx, directions)
        ends = []
        for layer in range(module.num_layers):
            outputs = []
            for direction in range(directions):
                state = [part[layer * directions + direction] for part in states]
                name = f"l{layer}" + ("_reverse" if direction else "")
                output, end = self._run_direction(input, state, name, bool(direction))
                outputs.append(output)
                ends.append(end)
            input = torch.cat(outputs, 2)
            if layer < module.num_layers - 1 and module.dropout and module.training:
                input = F.dropout(input, module.dropout, True)
        return self._maps, [input, *(torch.stack(part) for part in zip(*ends, strict=True))]

    def _first_states(self, input: Tensor, hx: Any, directions: int) -> list[Tensor]:
        module = self._module
        if hx is not None:
            return [part.to(input.dtype) for part in (hx if self._lstm else [hx])]
        sizes = [module.proj_size or module.hidden_size, module.hidden_size][: 1 + self._lstm]
        count, batch = module.num_layers * directions, input.shape[1]
        return [input.new_zeros(count, batch, size) for size in sizes]

    def _run_direction(
        self, input: Tensor, state: list[Tensor], name: str, reverse: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the outputs ``(time, batch, features)`` and the state at the end."""
        from_input = self._map(f"weight_ih_{name}", f"bias_ih_{name}")
        from_state = self._map(f"weight_hh_{name}", f"bias_hh_{name}")
        projection = self._map(f"weight_hr_{name}", "") if self._module.proj_size else None
        steps = range(len(input))
        outputs = []
        for step in reversed(steps) if reverse else steps:
            gates = self._apply(from_input, input[step]), self._apply(from_state, state[0])
            state = self._step(*gates, state)
            if projection is not None:
                state[0] = self._apply(projection, state[0])
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if reverse else outputs), state

    def _map(self, weight: str, bias: str) -> _Map:
        made = _Map(weight, bias, [], [])
        self._maps.append(made)
        return made

    def _apply(self, used: _Map, input: Tensor) -> Tensor:
        weight = getattr(self._module, used.weight).detach()
        bias = getattr(self._module, used.bias, None) if used.bias else None
        output = F.linear(input, weight, None if bias is None else bias.detach())
        if not output.requires_grad:
            output.requires_grad_()
        used.inputs.append(input)
        used.outputs.append(output)
        return output

    def _step(self, from_input: Tensor, from_state: Tensor, state: list[Tensor]) -> list[Tensor]:
        """Return the next state."""
        if self._lstm:
            i, f, g, o = (from_input + from_state).chunk(4, 1)
            cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
            return [o.sigmoid() * cell.tanh(), cell]
        if isinstance(self._module, nn.GRU):
            reset, update, new = from_input.chunk(3, 1)
            reset_state, update_state, new_state = from_state.chunk(3, 1)
            update = (update + update_state).sigmoid()
            new = (new + (reset + reset_state).sigmoid() * new_state).tanh()
            return [new + update * (state[0] - new)]
        total = from_input + from_state
        return [total.relu() if self._module.nonlinearity == "relu" else total.tanh()]
