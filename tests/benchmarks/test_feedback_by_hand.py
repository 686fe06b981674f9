"""Hand-written loops with learned feedback compute what their equations say."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import feedback, parallel_parts
from benchmarks.feedback_by_hand import by_hand, mlp, WAYS
from benchmarks.feedback_matrices import MATRICES

DEPTH, WIDTH, INPUTS, CLASSES, BATCH, STEPS = 3, 7, 5, 10, 16, 9
LEARNING_RATE = 1e-2


class Adam:
    """Adam by its equations, for one list of tensors."""

    def __init__(self, values, lr, first, second):
        self.values, self.lr, self.first, self.second = values, lr, first, second
        self.means = [torch.zeros_like(v) for v in values]
        self.squares = [torch.zeros_like(v) for v in values]
        self.steps = 0

    def step(self, grads):
        self.steps += 1
        for value, mean, square, grad in zip(
            self.values, self.means, self.squares, grads, strict=True
        ):
            mean.copy_(self.first * mean + (1 - self.first) * grad)
            square.copy_(self.second * square + (1 - self.second) * grad**2)
            direction = mean / (1 - self.first**self.steps)
            size = (square / (1 - self.second**self.steps)).sqrt()
            value -= self.lr * direction / (size + 1e-8)


class MeanSquare:
    """Exponentially weighted mean of mean squares, with weights that sum to one."""

    def __init__(self):
        self.sum, self.weight = 0.0, 0.0

    def add(self, tensor):
        self.sum = 0.99 * self.sum + 0.01 * tensor.square().mean()
        self.weight = 0.99 * self.weight + 0.01

    @property
    def root(self):
        mean = self.sum / self.weight if self.weight else torch.zeros(())
        return (mean + 1e-37) ** 0.5


class Reference:
    """The loops by their equations, without autograd and optimizers of PyTorch.

    The matrices are (features, classes); ``every`` is None where they learn in every step.
    """

    def __init__(self, network, every):
        self.every, self.steps = every, 0
        self.layers = [
            {name.split(".")[-1] + name.split(".")[-2]: p.detach().clone() for name, p in named}
            for named in ([*part.named_parameters(prefix="0")] for part in [*network][:-1])
        ]
        self.head = [p.detach().clone() for p in network[-1].parameters()]
        values = [v for layer in self.layers for v in layer.values()] + self.head
        self.adam = Adam(values, LEARNING_RATE, 0.9, 0.999)
        self.matrices = [torch.zeros(WIDTH, CLASSES).double() for _ in self.layers]
        self.feedback_adam = Adam(self.matrices, 1e-2, 0.5, 0.99)
        self.sizes = [MeanSquare() for _ in self.layers]
        self.error_size = MeanSquare()

    def part_forward(self, layer, x):
        z = x @ layer["weight0"].T + layer["bias0"]
        if "weight1" not in layer:
            return z.clamp(min=0), (x, z, None, None)
        centred = z - z.mean(0)
        std = (centred.square().mean(0) + 1e-5).sqrt()
        normal = centred / std
        output = normal * layer["weight1"] + layer["bias1"]
        return output.clamp(min=0), (x, output, normal, std)

    def part_backward(self, layer, saved, grad):
        x, before_relu, normal, std = saved
        grad = grad * (before_relu > 0)
        grads = {}
        if normal is not None:
            grads["weight1"], grads["bias1"] = (grad * normal).sum(0), grad.sum(0)
            scaled = grad * layer["weight1"]
            grad = (scaled - scaled.mean(0) - normal * (scaled * normal).mean(0)) / std
        grads["weight0"], grads["bias0"] = grad.T @ x, grad.sum(0)
        return grad @ layer["weight0"], [grads[name] for name in layer]

    def step(self, x, y):
        exact = self.every is not None and self.steps % self.every == 0
        saved = []
        for layer in self.layers:
            x, kept = self.part_forward(layer, x)
            saved.append(kept)
        weight, bias = self.head
        e = ((x @ weight.T + bias).softmax(1) - F.one_hot(y, CLASSES)) / len(y)
        self.error_size.add(e)
        normal_e = e / self.error_size.root
        grads = [e.T @ x, e.sum(0)]
        true, lessons = e @ weight, {}
        for i in reversed(range(len(self.layers))):
            predicted = normal_e @ self.matrices[i].T
            passed = true if exact else predicted * self.sizes[i].root
            if self.every is None or exact:
                self.sizes[i].add(true)
                difference = predicted - true / self.sizes[i].root
                lessons[i] = 2 * difference.T @ normal_e / difference.numel()
            true, own = self.part_backward(self.layers[i], saved[i], passed)
            grads = own + grads
        if lessons:
            self.feedback_adam.step([lessons[i] for i in range(len(self.layers))])
        self.adam.step(grads)
        self.steps += 1


def train(network, loop_or_reference):
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        x = torch.randn(BATCH, INPUTS, generator=generator, dtype=torch.double)
        y = torch.randint(0, CLASSES, (BATCH,), generator=generator)
        loop_or_reference.step(x, y)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.fixture(params=(False, True), ids=("no norm", "batch norm"))
def network(request):
    torch.manual_seed(0)
    return mlp(DEPTH, WIDTH, request.param, INPUTS).double()


@pytest.mark.parametrize("matrices", MATRICES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("every", [1, 2, 4])
def test_every_loop_follows_the_equations(network, every, way, matrices):
    reference = Reference(network, None if every == 1 else every)
    train(network, reference)
    start = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    loop = by_hand(network, optimizer, every, way, matrices)
    train(network, loop)
    for parameter, expected in zip(network.parameters(), reference.adam.values, strict=True):
        close(parameter.detach(), expected)
    for matrix, expected in zip(loop.matrices.values, reference.matrices, strict=True):
        assert expected.abs().max() > 1e-3
        close(matrix.T, expected)
    for parameter, before in zip(network.parameters(), start.parameters(), strict=True):
        assert not torch.equal(parameter, before)


def test_matrices_of_different_widths_are_joined():
    torch.manual_seed(0)
    first = nn.Sequential(
        nn.Sequential(nn.Linear(INPUTS, 6), nn.ReLU()),
        nn.Sequential(nn.Linear(6, 9), nn.ReLU()),
        nn.Linear(9, CLASSES),
    ).double()
    second = copy.deepcopy(first)
    loops = [
        by_hand(net, torch.optim.Adam(net.parameters(), lr=LEARNING_RATE), 2, WAYS[0], name)
        for net, name in ((first, "each"), (second, "joined"))
    ]
    for net, loop in zip((first, second), loops, strict=True):
        train(net, loop)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        close(a, b)
    for a, b in zip(loops[0].matrices.values, loops[1].matrices.values, strict=True):
        close(a, b)


def test_parallel_backward_passes_change_nothing(network):
    parallel = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    train(network, by_hand(network, optimizer, 4))
    optimizer = torch.optim.Adam(parallel.parameters(), lr=LEARNING_RATE)
    matrices = MATRICES["each"]([(WIDTH,)] * DEPTH, CLASSES, parallel[-1].weight)
    with ThreadPoolExecutor(2) as pool:
        train(parallel, parallel_parts.ParallelParts([*parallel], optimizer, matrices, 4, pool))
    for a, b in zip(network.parameters(), parallel.parameters(), strict=True):
        assert torch.equal(a, b)


def test_all_variants_are_measured():
    before = torch.get_num_threads()
    text, figures = feedback.run("cpu", networks=((2, 8),), blocks=1, variants=feedback.VARIANTS)
    loops = {row["loop"] for row in figures}
    assert len(loops) == 1 + 3 + 2 * (len(WAYS) + len(MATRICES) - 1)
    assert len(figures) == len(loops) * 2 * len({before, 1})
    assert "every 4, passes, stacked" in text
    assert "DNI, exact_every=8" in text
    assert torch.get_num_threads() == before


def test_one_loop_is_measured_by_default_and_operators_are_counted():
    _, figures = feedback.run("cpu", networks=((2, 8),), blocks=1)
    network = [row for row in figures if row["norm"] == "-"][:6]
    operators = {row["loop"]: row["operators"] for row in network}
    assert [*operators] == [
        "backpropagation",
        "DNI, exact_every=1",
        "DNI, exact_every=4",
        "DNI, exact_every=8",
        "every 1, cut nodes, each",
        "every 4, cut nodes, each",
    ]
    counts = [operators[name] for name in [*operators][:3]]
    assert counts[0] < counts[2] < counts[1]


def test_threads_are_compared(monkeypatch):
    before = torch.get_num_threads()
    small = {"MLP": lambda: parallel_parts.mlp_network(8), "CNN": parallel_parts.cnn_network}
    monkeypatch.setattr(parallel_parts, "NETWORKS", small)
    _, figures = parallel_parts.run("cpu", blocks=1)
    assert [row["network"] for row in figures] == ["MLP"] * 6 + ["CNN"] * 6
    assert figures[0]["ratio"] == 1
    assert torch.get_num_threads() == before
