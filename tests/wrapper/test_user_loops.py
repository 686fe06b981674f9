"""The training loop stays as it is, whatever its order and whatever else it does."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import DNI, Linear_DNI, LocalLoss_DNI, synthesizer_context
from tests.support.zoo import batchnorm_inplace, mlp


def run(order, steps=10, build=mlp, optimizer=torch.optim.Adam, **options):
    torch.manual_seed(3)
    network = build()
    opt = optimizer(network.parameters(), lr=0.01)
    net = DNI(network, optim=opt, **options)
    for _ in range(steps):
        order(net, opt, torch.randn(8, 6))
    return net, [p.detach().clone() for p in network.parameters()]


def zero_first(net, opt, x):
    opt.zero_grad()
    net(x).square().mean().backward()
    opt.step()


def zero_between(net, opt, x):
    loss = net(x).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()


def zero_last(net, opt, x):
    net(x).square().mean().backward()
    opt.step()
    opt.zero_grad(set_to_none=False)


@pytest.mark.parametrize("order", [zero_between, zero_last])
@pytest.mark.parametrize("build", [mlp, batchnorm_inplace])
def test_order_of_zero_grad_does_not_matter(order, build):
    _, expected = run(zero_first, build=build)
    _, found = run(order, build=build)
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)


def test_accumulated_gradients_add_up():
    network = mlp()
    x, y = torch.randn(4, 6), torch.randn(4, 6)
    net = DNI(network, grad_lr=0.0)
    for data in (x, y):
        net(data).square().mean().backward()
    together = [p.grad.clone() for p in network.parameters()]
    apart = []
    for data in (x, y):
        network.zero_grad()
        net(data).square().mean().backward()
        apart.append([p.grad.clone() for p in network.parameters()])
    for total, first, second in zip(together, *apart, strict=True):
        torch.testing.assert_close(total, first + second)


def test_clipping_and_schedulers():
    network = mlp()
    opt = torch.optim.SGD(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 1, 0.5)
    net = DNI(network, optim=opt)
    for _ in range(3):
        zero_first(net, opt, torch.randn(8, 6))
        norm = nn.utils.clip_grad_norm_(net.parameters(), 1e-6)
        assert norm.isfinite()
        schedule.step()
    assert opt.param_groups[0]["lr"] == pytest.approx(0.1 / 8)


def test_the_users_optimizer_never_sees_synthesizers():
    network = mlp()
    net = DNI(network, example_input=torch.randn(2, 6))
    assert net.interfaces
    assert [id(p) for p in net.parameters()] == [id(p) for p in network.parameters()]
    synthesizers = {id(p) for i in net.interfaces.values() for p in i.parameters()}
    assert synthesizers
    before = [p.clone() for i in net.interfaces.values() for p in i.parameters()]
    opt = torch.optim.SGD(net.parameters(), lr=10.0)
    net(torch.randn(8, 6)).square().mean().backward()
    trained = [p.clone() for i in net.interfaces.values() for p in i.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(before, trained, strict=True))
    opt.step()
    after = [p for i in net.interfaces.values() for p in i.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(trained, after, strict=True))
    assert all(p.grad is None for p in after)


@pytest.mark.parametrize("local", [False, True])
def test_autocast_and_loss_scaling(local):
    """Half-precision activations, scaled losses, and a step that overflows."""
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    opt = torch.optim.SGD(network.parameters(), lr=0.1)
    kind = {"dni_network": LocalLoss_DNI} if local else {}
    net = DNI(network, optim=opt, context_size=3, **kind)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    losses = []
    for step in range(60):
        opt.zero_grad()
        with torch.autocast("cpu", torch.bfloat16), synthesizer_context(y):
            loss = F.cross_entropy(net(x), y)
        if step == 5:
            loss = loss * float("inf")
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        losses.append(loss.item())
    interface = next(iter(net.interfaces.values()))
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in interface.parameters())
    assert all(p.isfinite().all() for p in network.parameters())
    assert losses[-1] < 0.8 * losses[0]
    first = network[0].weight.grad.norm()  # which the scaler has brought back to size
    bare = copy.deepcopy(net.network)
    bare.zero_grad()
    F.cross_entropy(net.unwrap()(x), y).backward()
    true = network[0].weight.grad.norm()
    assert 0.1 < first / true < 10


@pytest.mark.parametrize("kind", [Linear_DNI, LocalLoss_DNI])
def test_activations_that_overflow_teach_nothing(kind):
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    net = DNI(network, dni_network=kind, context_size=3)
    x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))
    before = []
    for scale in (1.0, 1.0, float("inf")):
        before = [p.clone() for i in net.interfaces.values() for p in i.parameters()]
        with synthesizer_context(y):
            F.cross_entropy(net(x * scale), y).backward()
    after = [p for i in net.interfaces.values() for p in i.parameters()]
    assert before
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_broken_backward_pass_leaves_nothing_behind():
    network = mlp()
    net = DNI(network, example_input=torch.randn(2, 6))

    def fail(grad):
        raise RuntimeError("stop")

    hidden = network[0](torch.randn(4, 6))
    hidden.register_hook(fail)
    before = [p.clone() for i in net.interfaces.values() for p in i.parameters()]
    with pytest.raises(RuntimeError, match="stop"):
        network[1:](hidden).sum().backward()
    after = [p for i in net.interfaces.values() for p in i.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for p in after)
    learner = net._cuts.learner
    assert learner._lessons  # of the cut that the pass had reached
    out = net(torch.randn(4, 6))
    assert not learner._lessons
    out.sum().backward()
    assert {s.updates for s in net.stats().values()} <= {1, 2}
    assert all(p.grad is None for p in after)


@pytest.mark.parametrize("eager", [False, True])
def test_frozen_parameters_of_synthesizers_are_left_alone(eager):
    def half_frozen(name, module, output):
        synthesizer = Linear_DNI(output.shape[1], 4, output.shape[1])
        synthesizer.layers.first.weight.requires_grad_(False)
        return synthesizer

    torch.manual_seed(0)
    net = DNI(mlp(), dni_network=half_frozen, eager=eager, example_input=torch.randn(2, 6))
    layers = net.interfaces["1"].synthesizer.layers
    before = layers.first.weight.clone()
    for _ in range(3):
        net(torch.randn(4, 6)).square().sum().backward()
    assert torch.equal(layers.first.weight, before)
    assert layers.first.weight.grad is None
    assert layers.last.weight.any()


def test_frozen_parts_are_left_alone():
    network = mlp()
    network[0].requires_grad_(False)
    net = DNI(network)
    net(torch.randn(4, 6)).sum().backward()
    assert list(net.interfaces) == ["3"]
    network[0].requires_grad_(True)
    net(torch.randn(4, 6)).sum().backward()
    assert set(net.interfaces) == {"1", "3"}


def test_in_place_or_not_learns_the_same():
    def build(inplace):
        torch.manual_seed(0)
        layers = [nn.Linear(6, 8), nn.ReLU(inplace), nn.Linear(8, 8), nn.ReLU(inplace)]
        return nn.Sequential(*layers, nn.Linear(8, 2))

    results = []
    for inplace in (False, True):
        network = build(inplace)
        opt = torch.optim.Adam(network.parameters(), lr=0.01)
        net = DNI(network, optim=opt, layers=["0", "2"])
        torch.manual_seed(1)
        for _ in range(6):
            zero_first(net, opt, torch.randn(8, 6))
        results.append([p.detach() for p in network.parameters()])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_the_networks_random_numbers_are_its_own():
    """Dropout masks and data order are those of the bare network with the same seed."""
    draws = []
    for wrapped in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        net = DNI(network, bp_lambda=1.0) if wrapped else network
        net(torch.randn(4, 6)).sum().backward()
        draws.append(torch.rand(3))
    assert torch.equal(*draws)
