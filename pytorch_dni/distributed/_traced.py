"""Parts of a general network, cut by the tracer of ``torch.distributed.pipelining``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import nn, Tensor
from torch.fx import GraphModule, Node

from .._torch import apply_to_tensors
from ..errors import DNIError
from ..placement._untouched import untouched


class TracedPart(nn.Module):
    """A part in two forms, traced in training and in ``eval()``, with the same parameters.

    Its parameters and buffers have the names that they have in the network.

    Args:
        training: The part as it was traced in training.
        evaluating: The part as it was traced in ``eval()``.
        network: The network, to which parameters and buffers belong.
    """

    _forms: tuple[GraphModule, GraphModule]

    def __init__(self, training: GraphModule, evaluating: GraphModule, network: nn.Module) -> None:
        super().__init__()
        # They are no submodules: what they hold is registered here under the network's names.
        object.__setattr__(self, "_forms", (training, evaluating))
        found = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        names = {
            name: None
            for form in (training, evaluating)
            for name in (*dict(form.named_parameters()), *dict(form.named_buffers()))
            if name in found
        }
        saved = network.state_dict(keep_vars=True)
        for name in names:
            owner = self._owner(self, name, nn.Module)
            leaf = name.rpartition(".")[2]
            if isinstance(found[name], nn.Parameter):
                owner.register_parameter(leaf, found[name])
            else:
                owner.register_buffer(leaf, found[name], persistent=name in saved)
        self._share()

    def forward(self, *inputs: Tensor) -> Any:
        """Run the form of the present mode."""
        training, evaluating = self._forms
        return (training if self.training else evaluating)(*inputs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TracedPart:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for form in self._forms:
            apply_to_tensors(form, fn)  # constants that only the graph holds, too
        self._share()
        return self

    def _share(self) -> None:
        """Give both forms the parameters and buffers that are registered here."""
        own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        for form in self._forms:
            for name, tensor in own.items():
                owner = self._owner(form, name, None)
                leaf = name.rpartition(".")[2]
                if owner is None:
                    continue
                if leaf in dict(owner.named_parameters(recurse=False)):
                    owner.register_parameter(leaf, tensor)
                elif leaf in dict(owner.named_buffers(recurse=False)):
                    owner.register_buffer(leaf, tensor)

    @staticmethod
    def _owner(module: nn.Module, name: str, make: type[nn.Module] | None) -> Any:
        """Return the module that a tensor belongs to; None where it is not there."""
        for step in name.split(".")[:-1]:
            child = dict(module.named_children()).get(step)
            if child is None:
                if make is None:
                    return None
                child = make()
                module.add_module(step, child)
            module = child
        return module


def traced_parts(
    network: nn.Module, begins: Sequence[str], example: tuple[Tensor, ...]
) -> list[nn.Module]:
    """Cut a network before the modules that are named.

    Raises:
        DNIError: It cannot be traced, or a value skips a part.
    """
    training = _trace(network, begins, example, True)
    evaluating = _trace(network, begins, example, False)
    shared: dict[str, int] = {}
    for number, form in enumerate(training):
        for name, _ in form.named_parameters():
            if shared.setdefault(name, number) != number:
                raise DNIError(
                    f"parameter {name!r} belongs to parts {shared[name]} and {number}, which "
                    "different ranks would train apart: cut so that one part has it alone"
                )
    return [TracedPart(*forms, network) for forms in zip(training, evaluating, strict=True)]


def _trace(
    network: nn.Module, begins: Sequence[str], example: tuple[Tensor, ...], mode: bool
) -> list[GraphModule]:
    # The import takes seconds, and needs a PyTorch that is built with distributed.
    from torch.distributed.pipelining import pipeline, SplitPoint

    # The tracer changes the modules at which it splits.
    own = copy.deepcopy(network).train(mode)
    spec = dict.fromkeys(begins, SplitPoint.BEGINNING)
    try:
        with untouched(own, example):
            pipe = pipeline(own, example, split_spec=spec)
    except Exception as error:
        reason = str(error.__cause__ or error).strip().splitlines()
        raise DNIError(
            f"torch.distributed.pipelining cannot trace {type(network).__name__}: "
            f"{reason[0] if reason else type(error).__name__}. Make the parts by hand: a list of "
            "modules, each of which takes what the one before returns"
        ) from error
    _check_chain(pipe.split_gm, begins)
    return [cast(GraphModule, pipe.get_stage_module(number)) for number in range(pipe.num_stages)]


def _check_chain(graph: GraphModule, begins: Sequence[str]) -> None:
    """Raise :class:`DNIError` where a part takes a value of another part than the one before."""
    numbers: dict[Node, int] = {}  # the part that each value comes from; -1 for inputs
    made = 0
    for node in graph.graph.nodes:
        if node.op in ("placeholder", "call_module"):
            numbers[node] = -1
        if node.op == "call_function":
            # One of several values of a part.
            numbers[node] = max(numbers[source] for source in node.all_input_nodes)
        if node.op in ("call_module", "output"):
            for source in node.all_input_nodes:
                if numbers[source] != made - 1:
                    raise _skip(graph, source, numbers[source], made, begins)
        if node.op == "call_module":
            numbers[node] = made
            made += 1


def _skip(
    graph: GraphModule, source: Node, before: int, number: int, begins: Sequence[str]
) -> DNIError:
    """Return the error for a value that skips parts, with its name and shape."""
    if before < 0:
        origin = f"input {source.name!r} of the network"
    else:
        origin = f"the output of {_name(graph, source)!r} in part {before}"
    end = number > len(begins)
    target = "the output of the network" if end else f"part {number}"
    return DNIError(
        f"a skip connection: {origin} goes to {target} past the parts between them. Parts begin "
        f"at {', '.join(map(repr, begins))}: cut where everything goes through one place, or make "
        "the parts by hand and have those between pass the value on"
    )


def _name(graph: GraphModule, source: Node) -> str:
    """Return the name of the module, or of the operation, that computes a value of a part."""
    part, index = source, None
    if source.op == "call_function":
        part, index = source.all_input_nodes[0], source.args[1]
    inner = graph.get_submodule(str(part.target))
    assert isinstance(inner, GraphModule)
    output = next(node for node in inner.graph.nodes if node.op == "output").args[0]
    if isinstance(output, (tuple, list)):
        output = output[index if isinstance(index, int) else 0]
    assert isinstance(output, Node)
    return str(output.target) if output.op == "call_module" else output.name
