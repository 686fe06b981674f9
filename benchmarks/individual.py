"""Per-example gradients, norms and inner products, over one ordinary forward and backward pass."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from pytorch_dni.individual import (
    individual_gradient_dots,
    individual_gradient_norms,
    individual_gradients,
    IndividualContext,
)

from .individual_peers import other_ways
from .memory_tracker import peak_memory
from .report import markdown_table
from .timing import time_steps

#: Examples, width and hidden layers of the perceptrons.
PERCEPTRONS = ((100, 100, 10), (100, 300, 3), (32, 300, 50), (1000, 100, 10))
#: Examples and side of the images of the convolutional network, and examples and length of the
#: sequences of the transformer.
IMAGES, SEQUENCES = (64, 16), (128, 32)
CLASSES, VOCABULARY = 10, 1000

_ORDINARY, _FLOOR = "ordinary pass", "floor: writing the result"
Step = Callable[[], object]


class Case(NamedTuple):
    """A network and its batch.

    Attributes:
        name: What the table calls it.
        network: The network.
        input: Input, with the examples in the first dimension.
        target: Labels.
    """

    name: str
    network: nn.Module
    input: Tensor
    target: Tensor

    def step(self) -> None:
        """Compute the gradients of the summed loss."""
        self.network.zero_grad()
        F.cross_entropy(self.network(self.input), self.target, reduction="sum").backward()

    def copied(self) -> Case:
        """Return the same case with a copy of the network."""
        return self._replace(network=copy.deepcopy(self.network))


class Transformer(nn.Module):
    """Classifies sequences: two layers of attention, and the mean over positions."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True) for _ in range(2)
        )
        self.last = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits ``(batch, classes)`` of tokens ``(batch, length)``."""
        hidden = self.embedding(tokens)
        for layer in self.layers:
            hidden = layer(hidden)
        logits: Tensor = self.last(hidden.mean(1))
        return logits


def perceptron(examples: int, width: int, depth: int, device: str) -> Case:
    """Return a perceptron, all of whose hidden layers and inputs have one width."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(width, CLASSES))
    name = f"({examples}, {width}, {depth})"
    return _case(name, network, torch.randn(examples, width), device)


def convolutional(examples: int, side: int, device: str) -> Case:
    """Return a small network with two convolutions."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(32 * (side // 4) ** 2, CLASSES))
    return _case("CNN", network, torch.randn(examples, 3, side, side), device)


def transformer(examples: int, length: int, device: str) -> Case:
    """Return a small transformer."""
    tokens = torch.randint(0, VOCABULARY, (examples, length))
    return _case("transformer", Transformer(), tokens, device)


def _case(name: str, network: nn.Module, input: Tensor, device: str) -> Case:
    target = torch.randint(0, CLASSES, (len(input),), device=device)
    return Case(name, network.to(device), input.to(device), target)


def run(
    device: str,
    perceptrons: Sequence[tuple[int, int, int]] = PERCEPTRONS,
    images: tuple[int, int] = IMAGES,
    sequences: tuple[int, int] = SEQUENCES,
    blocks: int = 9,
    length: int = 5,
) -> tuple[str, list[dict[str, Any]]]:
    """Measure all networks, with one thread on the CPU.

    Args:
        device: Where the networks are.
        perceptrons: Examples, width and hidden layers of each.
        images: Examples and side of images.
        sequences: Examples and length of sequences.
        blocks: Number of blocks of steps that are measured.
        length: Number of steps in a block.

    Returns:
        A table and its figures: step times, and peak memory over that of an ordinary pass.
    """
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cases = [perceptron(*sizes, device) for sizes in perceptrons]
        cases += [convolutional(*images, device), transformer(*sequences, device)]
        figures = [figure for case in cases for figure in _measure(case, device, blocks, length)]
    finally:
        torch.set_num_threads(threads)
    return _table(figures), figures


def _measure(case: Case, device: str, blocks: int, length: int) -> list[dict[str, Any]]:
    """Return the figures of all ways for one network."""
    # The CPU time of one thread is its step time, and other programs hardly change it.
    clock = time.process_time if device == "cpu" else time.perf_counter
    with ExitStack() as stack:
        steps: dict[str, Step] = {_ORDINARY: case.step, _FLOOR: floor_step(case)}
        steps |= own_ways(case, stack)
        if case.name != "transformer":  # its attention is no layer of the other ways
            steps |= other_ways(case.network, case.input, case.target)
        timings = time_steps(steps, blocks, length, warm_up=1, clock=clock)
        memory = {_ORDINARY: _peak(case, case.step)} if device == "cpu" else {}
        for name, step in steps.items():
            if memory and isinstance(step, _OwnWay):
                memory[name] = _peak(step.case, step)
    return [
        {
            "network": case.name,
            "way": name,
            **timing._asdict(),
            "memory": memory[name] / memory[_ORDINARY] if name in memory else None,
        }
        for name, timing in timings.items()
    ]


def _peak(case: Case, step: Step) -> int:
    """Return the peak memory of a step in bytes, with gradients of parameters."""
    return peak_memory(step, case.network, [case.input, case.target], [])[1]


def own_ways(case: Case, stack: ExitStack) -> dict[str, _OwnWay]:
    """Return the steps of the library by name, inside of contexts that the stack leaves.

    Each has a copy of the network, so that all may be entered at once.
    """
    out: tuple[dict[str, Tensor], ...] = ({}, {})
    contexts: dict[str, Callable[[nn.Module], IndividualContext[Any]]] = {
        "gradients": lambda net: individual_gradients(net, out=out[0]),
        "gradients, no grad": lambda net: individual_gradients(net, out=out[1], grad=False),
        "norms": lambda net: individual_gradient_norms(net),
        "norms, no grad": lambda net: individual_gradient_norms(net, grad=False),
        "inner products": lambda net: individual_gradient_dots(net),
        "inner products, no grad": lambda net: individual_gradient_dots(net, grad=False),
    }
    return {name: _own_way(case.copied(), context, stack) for name, context in contexts.items()}


class _OwnWay:
    """A step inside of a context.

    Args:
        case: The network and its batch.
        values: What entering the context returned.
    """

    def __init__(self, case: Case, values: Any) -> None:
        self.case, self._values = case, values

    def __call__(self) -> object:
        """Take a step, and return the values over all parameters, if there are any."""
        self.case.step()
        return getattr(self._values, "total", None)


def _own_way(
    case: Case, context: Callable[[nn.Module], IndividualContext[Any]], stack: ExitStack
) -> _OwnWay:
    return _OwnWay(case, stack.enter_context(context(case.network)))


def floor_step(case: Case) -> Step:
    """Return a step that writes as many bytes as the gradients have, into mapped memory."""
    buffers = [
        torch.zeros(len(case.input), *parameter.shape, device=case.input.device)
        for parameter in case.network.parameters()
    ]

    def step() -> None:
        for buffer in buffers:
            buffer.fill_(1.0)

    return step


def _table(figures: Sequence[dict[str, Any]]) -> str:
    header = ["network", "way", "ms", "over an ordinary pass", "range", "memory over it"]
    rows = [
        [
            figure["network"],
            figure["way"],
            f"{figure['milliseconds']:.2f}",
            f"{figure['ratio']:.2f}",
            f"{figure['low']:.2f} to {figure['high']:.2f}",
            "-" if figure["memory"] is None else f"{figure['memory']:.2f}",
        ]
        for figure in figures
    ]
    return markdown_table(header, rows)
