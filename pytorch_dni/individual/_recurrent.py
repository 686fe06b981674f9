"""The rule of recurrent layers: the gradients of their gates, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from ..errors import describe, DNIError
from ._forms import OuterProducts
from ._layers import unbatched
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
        given = [*call.output_grads]
        if module.batch_first:
            given[0] = given[0].transpose(0, 1)
        return _forms(call, maps, outputs, given)


class CellRule(LayerRule):
    """Per-example gradients of ``RNNCell``, ``LSTMCell`` and ``GRUCell``."""

    depends_on_state = False

    def gradients(self, call: LayerCall) -> Mapping[str, Gradients]:
        """Return the gradients by the parameter's name."""
        input, hx = _given(call)
        if input.dim() != 2:
            raise unbatched(call, "(batch, features)")
        with torch.enable_grad():
            maps, outputs = _Unrolled(call.module).run_cell(input, hx)
        return _forms(call, maps, outputs, call.output_grads)


def _forms(
    call: LayerCall, maps: list[_Map], outputs: list[Tensor], given: Sequence[Tensor]
) -> Mapping[str, Gradients]:
    grads = _gradients(maps, outputs, given)
    module = call.module
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


def _given(call: LayerCall) -> tuple[Any, Any]:
    """Return the input and the state at the beginning."""
    given = [*call.args, *call.kwargs.values()]
    return given[0], given[1] if len(given) > 1 else None


def _inputs(call: LayerCall) -> tuple[Tensor, Any]:
    """Return the input ``(time, batch, features)`` and the state at the beginning."""
    module: Any = call.module
    input, hx = _given(call)
    if not isinstance(input, Tensor):
        raise DNIError(
            f"{describe(call.name, module)} got an input of type {type(input).__name__}: packed "
            "sequences are not supported, pad them"
        )
    if input.dim() != 3:
        raise unbatched(call, "a batch of sequences")
    return input.transpose(0, 1) if module.batch_first else input, hx


def _gradients(
    maps: list[_Map], outputs: list[Tensor], given: Sequence[Tensor]
) -> list[list[Tensor]]:
    """Return the gradients of all outputs of each map."""
    asked = [output for found in maps for output in found.outputs]
    given = [grad.to(output.dtype) for grad, output in zip(given, outputs, strict=True)]
    found = iter(torch.autograd.grad(outputs, asked, given, materialize_grads=True))
    return [[next(found) for _ in own.outputs] for own in maps]


def _stacked(hx: Any) -> Any:
    """Return the state of a cell with a dimension of layers."""
    if hx is None or isinstance(hx, Tensor):
        return hx if hx is None else hx[None]
    return [part[None] for part in hx]


class _Unrolled:
    """Runs a recurrent layer step by step, and notes its linear maps.

    Args:
        module: The layer.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._lstm = isinstance(module, (nn.LSTM, nn.LSTMCell))
        self._maps: list[_Map] = []

    def run(self, input: Tensor, hx: Any) -> tuple[list[_Map], list[Tensor]]:
        """Return the maps and what the layer returns, as a list of tensors."""
        module = self._module
        directions = 2 if module.bidirectional else 1
        input = input.to(module.weight_ih_l0.dtype)
        states = self._first_states(input, hx, module.num_layers * directions)
        ends = []
        for layer in range(module.num_layers):
            outputs = []
            for direction in range(directions):
                state = [part[layer * directions + direction] for part in states]
                name = f"_l{layer}" + ("_reverse" if direction else "")
                output, end = self._run_direction(input, state, name, bool(direction))
                outputs.append(output)
                ends.append(end)
            input = torch.cat(outputs, 2)
            if layer < module.num_layers - 1 and module.dropout and module.training:
                input = F.dropout(input, module.dropout, True)
        return self._maps, [input, *(torch.stack(part) for part in zip(*ends, strict=True))]

    def run_cell(self, input: Tensor, hx: Any) -> tuple[list[_Map], list[Tensor]]:
        """Return the maps and what a cell returns, as a list of tensors."""
        input = input.to(self._module.weight_ih.dtype)
        state = [part[0] for part in self._first_states(input[None], _stacked(hx), 1)]
        _, end = self._run_direction(input[None], state, "", False)
        return self._maps, end

    def _first_states(self, input: Tensor, hx: Any, count: int) -> list[Tensor]:
        """Return the state at the beginning, with the layers in the first dimension."""
        module = self._module
        if hx is not None:
            return [part.to(input.dtype) for part in (hx if self._lstm else [hx])]
        width = module.hidden_size
        sizes = [getattr(module, "proj_size", 0) or width, width][: 1 + self._lstm]
        return [input.new_zeros(count, input.shape[1], size) for size in sizes]

    def _run_direction(
        self, input: Tensor, state: list[Tensor], name: str, reverse: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the outputs ``(time, batch, features)`` and the state at the end."""
        from_input = self._map(f"weight_ih{name}", f"bias_ih{name}")
        from_state = self._map(f"weight_hh{name}", f"bias_hh{name}")
        projection = (
            self._map(f"weight_hr{name}", "") if getattr(self._module, "proj_size", 0) else None
        )
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
        if isinstance(self._module, (nn.GRU, nn.GRUCell)):
            reset, update, new = from_input.chunk(3, 1)
            reset_state, update_state, new_state = from_state.chunk(3, 1)
            update = (update + update_state).sigmoid()
            new = (new + (reset + reset_state).sigmoid() * new_state).tanh()
            return [new + update * (state[0] - new)]
        total = from_input + from_state
        return [total.relu() if self._module.nonlinearity == "relu" else total.tanh()]
