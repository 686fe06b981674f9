"""Eager learning trains like the default way."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pytorch_dni import Conv2d_DNI, DNI, Linear_DNI, LocalError_DNI, LocalLoss_DNI
from tests.support.eager_nets import assert_same_training, default_and_eager, train
from tests.support.zoo import ZOO


@pytest.mark.parametrize("example", [False, True])
@pytest.mark.parametrize("name", ZOO)
def test_every_architecture_equals_the_default_way(name, example):
    torch.manual_seed(5)
    inputs = [ZOO[name].input() for _ in range(20)]
    # The example input places the cuts, as the first step of the default way would.
    default, eager = default_and_eager(name, example_input=inputs[0])
    if not example:
        eager = default_and_eager(name)[1]
    for net in (default, eager):
        train(net, inputs, ZOO[name].loss)
    assert_same_training(eager, default)
    assert any(stats.updates == 20 for stats in eager.stats().values())


@pytest.mark.parametrize("kind", [LocalLoss_DNI, LocalError_DNI])
@pytest.mark.parametrize("name", ["mlp", "cnn", "batchnorm_inplace", "transformer"])
def test_local_heads_equal_the_default_way(name, kind):
    torch.manual_seed(5)
    inputs = [ZOO[name].input() for _ in range(20)]
    labels = torch.randint(3, (len(inputs[0]),))
    nets = default_and_eager(name, dni_network=kind, context_size=3, example_input=inputs[0])
    for net in nets:
        train(net, inputs, ZOO[name].loss, labels)
    assert_same_training(*nets)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mlp", Linear_DNI), ("cnn", Conv2d_DNI), ("mlp", LocalError_DNI), ("cnn", LocalError_DNI)],
)
def test_contexts_optimizers_and_several_steps_equal_the_default_way(name, kind):
    torch.manual_seed(5)
    inputs = [ZOO[name].input() for _ in range(20)]
    labels = torch.randint(3, (len(inputs[0]),))
    nets = default_and_eager(
        name,
        dni_network=kind,
        context_size=3,
        grad_optim="sgd",
        grad_lr=0.1,
        grad_steps=3,
        example_input=inputs[0],
    )
    for net in nets:
        train(net, inputs, ZOO[name].loss, labels)
    assert_same_training(*nets)


@pytest.mark.parametrize("kind", [Linear_DNI, LocalLoss_DNI, LocalError_DNI])
def test_sparse_updates_equal_the_default_way(kind):
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(40)]
    local = kind is not Linear_DNI
    options = {"dni_network": kind, "context_size": 3 if local else None}
    nets = default_and_eager("mlp", update_probability=0.5, example_input=inputs[0], **options)
    labels = torch.randint(3, (len(inputs[0]),)) if local else None
    for net in nets:
        train(net, inputs, ZOO["mlp"].loss, labels)
    assert_same_training(*nets)


def test_a_part_without_parameters_equals_the_default_way():
    torch.manual_seed(5)
    inputs, labels = [torch.randn(8, 4) for _ in range(12)], torch.randint(3, (8,))
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Tanh(), nn.Linear(6, 3))
    nets = []
    for eager in (False, True):
        nets.append(
            DNI(
                copy.deepcopy(network),
                layers=["1", "2"],
                eager=eager,
                dni_network=LocalLoss_DNI,
                context_size=3,
            )
        )
        train(nets[-1], inputs, lambda out: F.cross_entropy(out, labels), labels)
    assert_same_training(*nets)


def test_bp_lambda_above_zero_equals_the_default_way():
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(20)]
    nets = default_and_eager(
        "mlp",
        bp_lambda=lambda step: 1.0 if step < 7 else 0.5 * (step < 12),
        example_input=inputs[0],
    )
    for net in nets:
        train(net, inputs, ZOO["mlp"].loss)
    assert_same_training(*nets)


@pytest.mark.parametrize("options", [{"recursive": False}, {"layers": ["0", "4"]}])
def test_a_cut_at_the_output_equals_the_default_way(options):
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(10)]
    torch.manual_seed(0)
    network, nets = ZOO["mlp"].build(), []
    for eager in (False, True):
        torch.manual_seed(3)
        example = {} if "recursive" in options else {"example_input": inputs[0]}
        given = {"unlock": "update", **options, **example}
        nets.append(DNI(copy.deepcopy(network), eager=eager, **given))
    for net in nets:
        train(net, inputs, ZOO["mlp"].loss)
    assert_same_training(*nets)


def test_frozen_parameters_equal_the_default_way():
    torch.manual_seed(5)
    inputs = [ZOO["mlp"].input() for _ in range(10)]
    nets = default_and_eager("mlp", example_input=inputs[0])
    for net in nets:
        for name, parameter in net.network.named_parameters():
            parameter.requires_grad_(name not in ("0.weight", "2.weight", "2.bias"))
        train(net, inputs, ZOO["mlp"].loss)
        assert net.network[2].weight.grad is None
    assert_same_training(*nets)


def test_autocast_equals_the_default_way():
    nets = default_and_eager("mlp", example_input=ZOO["mlp"].input())
    for net in nets:
        torch.manual_seed(7)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        for _ in range(10):
            with torch.autocast("cpu", torch.bfloat16):
                loss = ZOO["mlp"].loss(net(ZOO["mlp"].input()).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert_same_training(*nets)


@pytest.mark.parametrize("autocast", [False, True])
def test_parameters_shared_between_parts_equal_the_default_way(autocast):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = (nn.Linear(6, 6) for _ in range(3))
            self.second.weight, self.second.bias = self.first.weight, self.first.bias

        def forward(self, x):
            return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))

    torch.manual_seed(0)
    network = Tied()
    results = []
    for eager in (False, True):
        torch.manual_seed(3)
        options = {"unlock": "update", "example_input": torch.randn(4, 6)}
        net = DNI(copy.deepcopy(network), eager=eager, **options)
        torch.manual_seed(4)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            for _ in range(3):
                before = [p.clone() for i in net.interfaces.values() for p in i.weights]
                out = net(torch.randn(4, 6))
                # Later parts use parameters of earlier ones. No synthesizer may learn before the
                # backward pass.
                now = [p for i in net.interfaces.values() for p in i.weights]
                assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True))
                out.float().square().mean().backward()
        results.append([p.grad for p in net.parameters()])
        assert all(stats.updates == 3 for stats in net.stats().values())
    for ours, theirs in zip(*results, strict=True):
        # Under autocast the terms are rounded and added in another order.
        tolerance = {"rtol": 1e-2, "atol": 1e-4} if autocast else {}
        torch.testing.assert_close(ours, theirs, **tolerance)


def test_checkpointed_parts_equal_the_default_way():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(6, 6) for _ in range(3))

        def forward(self, x):
            x = checkpoint(lambda t: torch.relu(self.a(t)), x, use_reentrant=False)
            return self.c(torch.relu(self.b(x)))

    torch.manual_seed(0)
    network = Net()
    results = []
    for eager in (False, True):
        torch.manual_seed(3)
        options = {"unlock": "update", "layers": "b", "example_input": torch.randn(4, 6)}
        net = DNI(copy.deepcopy(network), eager=eager, **options)
        for _ in range(3):
            net(torch.ones(4, 6)).square().mean().backward()
        results.append([p.grad for p in net.parameters()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
