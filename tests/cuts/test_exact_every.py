"""Exact gradients in one step of k; in the other steps no gradient crosses a cut."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from pytorch_dni import DNI, DNIError, Linear_DNI, LocalLoss_DNI, synthesizer_context
from tests.support.wrapped import assert_equal, gradients
from tests.support.zoo import ZOO

CUT_ALONE = [name for name in ZOO if name not in ("lstm", "gru")]


def network():
    torch.manual_seed(0)
    layers = []
    for _ in range(3):
        layers += [nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(6, 3))


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 6, generator=generator), torch.randint(0, 3, (8,), generator=generator)


def step(net, optimizer, seed):
    x, y = batch(seed)
    optimizer.zero_grad()
    with synthesizer_context(None):
        loss = F.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("name", CUT_ALONE)
def test_exact_steps_are_backpropagation_to_the_bit(name):
    example = ZOO[name]
    bare = example.build()
    net = DNI(copy.deepcopy(bare), exact_every=2, recurrent=False)
    for i in range(4):
        x = example.input()
        torch.manual_seed(i)
        loss, expected = gradients(bare, example, x, seed=i)
        own, found = gradients(net, example, x, seed=i)
        assert torch.equal(own, loss)
        if i % 2 == 0:
            assert {f"network.{name}" for name in expected} == {*found}
            for key, grad in expected.items():
                assert torch.equal(found[f"network.{key}"], grad)


def test_no_input_gradient_is_computed_in_the_other_steps():
    """In a chain of linear layers, products are what a step costs."""
    from torch.utils.flop_counter import FlopCounterMode

    def cost(net):
        counter = FlopCounterMode(display=False)
        with counter:
            net(x).square().mean().backward()
        return counter.get_total_flops()

    bare = nn.Sequential(*[nn.Linear(64, 64) for _ in range(8)], nn.Linear(64, 1))
    x = torch.randn(32, 64)
    net = DNI(copy.deepcopy(bare), exact_every=2)
    exact, _ = cost(net), cost(net)  # the first other step checks where its gradient comes from
    _, other = cost(net), cost(net)
    product = 2 * 32 * 64 * 64
    assert cost(bare) == (3 * 8 - 1) * product + 3 * 2 * 32 * 64  # the input needs no gradient
    assert exact > cost(bare)
    # Forward and weight gradients alone, and a product with the error, of width 1, at each cut.
    assert other == 2 * 8 * product + 2 * 2 * 32 * 64 + 8 * 2 * 32 * 64


@pytest.mark.parametrize("kind", [None, Linear_DNI])
def test_training_resumed_and_copied_goes_on_alike(kind):
    def train(net, optimizer, steps):
        return torch.stack([step(net, optimizer, seed) for seed in steps])

    net = DNI(network(), exact_every=3, dni_network=kind)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    train(net, optimizer, range(7))
    saved = io.BytesIO()
    torch.save({"net": net.state_dict(), "optim": optimizer.state_dict()}, saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    other = DNI(network(), exact_every=3, dni_network=kind)
    resumed = torch.optim.Adam(other.parameters(), lr=1e-2)
    other.load_state_dict(state["net"])
    resumed.load_state_dict(copy.deepcopy(state["optim"]))
    copied = copy.deepcopy(net)
    again = torch.optim.Adam(copied.parameters(), lr=1e-2)
    again.load_state_dict(copy.deepcopy(state["optim"]))
    expected = train(net, optimizer, range(7, 15))
    assert torch.equal(train(other, resumed, range(7, 15)), expected)
    assert torch.equal(train(copied, again, range(7, 15)), expected)
    assert expected[-1] < expected[0]


def test_gradients_add_up_over_backward_passes():
    net = DNI(network(), exact_every=2)
    once = []
    for twice in (False, True):
        fresh = copy.deepcopy(net)
        for seed in (1, 2):
            if not twice:
                fresh.zero_grad()
            F.cross_entropy(fresh(batch(seed)[0]), batch(seed)[1]).backward()
            once.append([p.grad.clone() for p in fresh.parameters()])
    for first, second, both in zip(once[0], once[1], once[3], strict=True):
        torch.testing.assert_close(first + second, both)


def test_hooks_of_parameters_and_torch_autograd_grad_see_the_gradients():
    net = DNI(network(), exact_every=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    step(net, optimizer, 0)
    twin = copy.deepcopy(net)
    seen = []
    parameter = net.network[0].weight
    parameter.register_hook(lambda grad: seen.append(grad.clone()) or 2 * grad)
    x, y = batch(1)
    net.zero_grad()
    F.cross_entropy(net(x), y).backward()
    assert len(seen) == 1
    torch.testing.assert_close(parameter.grad, 2 * seen[0])
    found = torch.autograd.grad(F.cross_entropy(twin(x), y), twin.network[0].weight)[0]
    assert torch.equal(found, seen[0])
    assert found.abs().sum() > 0


def test_local_heads_learn_in_every_step():
    net = DNI(network(), exact_every=4, context_size=3, dni_network=LocalLoss_DNI)
    heads = []
    for seed in range(3):
        x, y = batch(seed)
        with synthesizer_context(y):
            F.cross_entropy(net(x), y).backward()
        head = net.interfaces["2"].synthesizer.head.last.weight
        heads.append(head.detach().clone())
    assert not torch.equal(heads[1], heads[0])
    assert not torch.equal(heads[2], heads[1])


def test_a_pass_that_is_not_backpropagated_leaves_no_trace():
    net = DNI(network(), exact_every=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    step(net, optimizer, 0)
    twin = copy.deepcopy(net)
    net(batch(5)[0])
    twin.network.load_state_dict(net.network.state_dict())  # batch norm has counted the pass
    losses = [step(one, torch.optim.SGD(one.parameters(), lr=0.1), 1) for one in (net, twin)]
    assert torch.equal(*losses)
    assert_equal([*net.parameters()], [*twin.parameters()])


def test_checkpointed_parts_learn():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
            self.last = nn.Linear(6, 3)

        def forward(self, x):
            x = torch.relu(self.first(x))
            body = nn.Sequential(self.second, nn.ReLU())
            return self.last(checkpoint(body, x, use_reentrant=False))

    net = DNI(Checkpointed(), exact_every=2)
    for seed in range(4):
        net.zero_grad()
        F.cross_entropy(net(batch(seed)[0]), batch(seed)[1]).backward()
        assert net.network.last.weight.grad.abs().sum() > 0
        assert net.network.second.weight.grad.abs().sum() > 0


def test_mixed_precision_trains():
    net = DNI(network(), exact_every=2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu")
    losses = []
    for _ in range(40):
        x, y = batch(0)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_arguments_that_contradict_it_are_errors():
    for options in (
        {"eager": True},
        {"unlock": "full"},
        {"update_probability": 0.5},
        {"bp_lambda": 0.5},
        {"bp_lambda": lambda step: 0.0},
    ):
        with pytest.raises(DNIError, match="exact_every"):
            DNI(network(), exact_every=2, **options)
    with pytest.raises(DNIError, match="exact_every"):
        DNI(nn.LSTM(3, 4), exact_every=2)
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(DNIError, match="positive integer"):
            DNI(network(), exact_every=wrong)
    net = DNI(network(), exact_every=2)
    with pytest.raises(DNIError, match="take one of the two"):
        net.bp_lambda = 1.0


def test_distributed_data_parallel_averages_the_gradients(tmp_path):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net = DNI(network(), exact_every=2, example_input=batch(0)[0])
        twin = copy.deepcopy(net)
        parallel = DistributedDataParallel(net)
        for seed in range(4):
            for one in (parallel, twin):
                one.zero_grad()
                F.cross_entropy(one(batch(seed)[0]), batch(seed)[1]).backward()
            for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
                torch.testing.assert_close(ours.grad, theirs.grad)
    finally:
        dist.destroy_process_group()
