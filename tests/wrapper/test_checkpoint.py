"""Checkpoints, copies and moves: training goes on as if never stopped."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytorch_dni import (
    CheckpointError,
    DNI,
    Linear_DNI,
    LocalLoss_DNI,
    RNN_DNI,
    synthesizer_context,
)
from tests.support.zoo import batchnorm_inplace, Recurrent


def classifier():
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


KINDS = {
    "regressed": {},
    "recurrent": {"dni_network": RNN_DNI, "hidden_size": 5},
    "local": {"dni_network": LocalLoss_DNI},
    "named": {"layers": ["0", "3"], "grad_optim": "sgd"},
}


class Run:
    def __init__(self, **options):
        torch.manual_seed(0)
        self.network = classifier()
        self.opt = torch.optim.Adam(self.network.parameters(), lr=0.01)
        self.net = DNI(self.network, optim=self.opt, context_size=3, **options)

    def train(self, begin, end):
        for step in range(begin, end):
            draw = torch.Generator().manual_seed(step)
            x = torch.randn(8, 6, generator=draw)
            y = torch.randint(0, 3, (8,), generator=draw)
            self.opt.zero_grad()
            with synthesizer_context(y):
                loss = F.cross_entropy(self.net(x), y)
            loss.backward()
            self.opt.step()

    def everything(self):
        interfaces = self.net.interfaces.values()
        return [*self.network.parameters(), *(p for i in interfaces for p in i.parameters())]


def through_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fresh", [True, False])
def test_resumed_training_goes_on_as_if_never_stopped(kind, fresh):
    whole = Run(**KINDS[kind])
    whole.train(0, 30)
    first = Run(**KINDS[kind])
    first.train(0, 12)
    state = through_file({"net": first.net.state_dict(), "opt": first.opt.state_dict()})
    second = Run(**KINDS[kind])
    if not fresh:
        second.train(50, 53)
    second.net.load_state_dict(state["net"])
    second.opt.load_state_dict(state["opt"])
    assert list(second.net.interfaces) == list(first.net.interfaces)
    second.train(12, 30)
    assert_same(whole.everything(), second.everything())
    assert whole.net.stats() == second.net.stats()


def test_the_networks_state_is_the_bare_networks_key_for_key():
    run = Run()
    keys = list(classifier().state_dict())
    run.train(0, 2)
    assert list(run.net.network.state_dict()) == keys
    classifier().load_state_dict(run.net.network.state_dict())
    assert set(run.net.state_dict()) == {f"network.{k}" for k in keys} | {"_extra_state"}


def test_a_wrapper_saved_before_it_ran():
    state = through_file(Run().net.state_dict())
    run = Run()
    run.train(0, 2)
    other = Run()
    other.net.load_state_dict(state)
    other.train(0, 2)
    assert_same(run.everything(), other.everything())


def test_bp_lambda_set_while_training_is_kept():
    run = Run()
    run.net.bp_lambda = 0.25
    other = Run()
    other.net.load_state_dict(through_file(run.net.state_dict()))
    assert other.net.bp_lambda == 0.25
    scheduled = Run(bp_lambda=lambda step: 1.0)
    scheduled.net.load_state_dict(through_file(run.net.state_dict()))
    assert callable(scheduled.net.bp_lambda)


@pytest.mark.parametrize(
    "options", [{"hidden_size": 16}, {"dni_network": LocalLoss_DNI}, {"grad_optim": "sgd"}]
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(options):
    run = Run()
    run.train(0, 3)
    state = through_file(run.net.state_dict())
    other = Run(**options)
    other.train(5, 8)
    before = [p.clone() for p in other.everything()]
    stats = other.net.stats()
    with pytest.raises(CheckpointError, match="does not fit this wrapper"):
        other.net.load_state_dict(state)
    assert_same(before, other.everything())
    assert other.net.stats() == stats
    network = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3))
    with pytest.raises(CheckpointError, match="does not fit this wrapper"):
        DNI(network, context_size=3).load_state_dict(state, strict=False)


def test_copies_go_their_own_way():
    run = Run()
    run.train(0, 3)
    for clone in (copy.deepcopy(run), pickle.loads(pickle.dumps(run))):
        before = [p.clone() for p in run.everything()]
        assert_same(before, clone.everything())
        clone.train(3, 6)
        assert_same(before, run.everything())
        run_on = copy.deepcopy(run)
        run_on.train(3, 6)
        assert_same(run_on.everything(), clone.everything())
        clone.net.unwrap()
        assert not any(m._forward_hooks for m in clone.network.modules())
        assert any(m._forward_hooks for m in run.network.modules())


def test_copies_made_before_the_first_run():
    run = Run()
    for clone in (copy.deepcopy(run), pickle.loads(pickle.dumps(run))):
        clone.train(0, 3)
        assert clone.net.interfaces
        assert not run.net.interfaces


def test_attributes_are_looked_up_in_the_network():
    network = Recurrent()
    network.vocabulary = 11
    net = DNI(network)
    assert net.vocabulary == 11
    assert net.head is network.head
    with pytest.raises(AttributeError, match="nonsense"):
        _ = net.nonsense


def test_moves_take_the_synthesizers_along():
    net = DNI(batchnorm_inplace())
    for dtype in (torch.float32, torch.float64, torch.float32):
        net.to(dtype)
        for _ in range(2):
            net(torch.randn(5, 6, dtype=dtype)).square().mean().backward()
        for interface in net.interfaces.values():
            assert {p.dtype for p in interface.parameters()} == {dtype}
    net.bfloat16()
    net(torch.randn(5, 6).bfloat16()).square().mean().backward()
    for interface in net.interfaces.values():
        assert {p.dtype for p in interface.parameters()} == {torch.float32}
        assert interface.moments.values.dtype == torch.float32
    assert next(net.parameters()).grad.dtype == torch.bfloat16


def test_moves_keep_the_optimizers_state():
    def train(move):
        torch.manual_seed(0)
        net = DNI(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)), dni_network=Linear_DNI)
        for step in range(6):
            if step == 3 and move:
                net.double().float()
            torch.manual_seed(step)
            net(torch.randn(8, 4)).square().mean().backward()
        return list(net.interfaces["0"].parameters())

    assert_same(train(False), train(True))
