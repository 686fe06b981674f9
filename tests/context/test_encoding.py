"""Contexts: scopes, encodings, and how they are laid along an activation."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pytorch_dni import ContextError, DNI, DNI_Network, Linear_DNI, synthesizer_context
from pytorch_dni.context import current_context


class Spy(DNI_Network):
    """Predicts nothing and notes what it is given."""

    seen: list

    def __init__(self, input_size, hidden_size, output_size):
        super().__init__(input_size, hidden_size, output_size)
        type(self).seen = []

    def forward(self, input, hidden):
        self.seen.append(input)
        shape = list(input.shape)
        dim = shape.index(self.input_size, 1)
        return input.narrow(dim, 0, self.output_size) * 0, None


def seen(network, x, context, size, **options):
    net = DNI(network, layers="0", dni_network=Spy, context_size=size, **options)
    with synthesizer_context(context):
        net(x).sum().backward()
    net.unwrap()
    return Spy.seen[-1]


def test_labels_are_one_hot_and_joined_along_the_features():
    y = torch.tensor([0, 2, 1])
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    x = torch.randn(3, 4)
    given = seen(network, x, y, 3)
    assert torch.equal(given[:, :5], network[0](x))
    assert torch.equal(given[:, 5:], F.one_hot(y, 3).float())


def test_features_are_taken_as_they_are_in_the_activations_type():
    c = torch.randn(3, 2)
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)).double()
    given = seen(network, torch.randn(3, 4).double(), c, 2)
    assert given.dtype == torch.float64
    assert torch.equal(given[:, 5:], c.double())


def test_one_row_for_a_sample_is_laid_along_its_positions():
    y = torch.tensor([1, 0])
    given = seen(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)), torch.randn(2, 3, 4), y, 2)
    assert torch.equal(given[..., 5:], F.one_hot(y, 2).float()[:, None].expand(2, 3, 2))


def test_labels_at_every_position():
    y = torch.randint(0, 2, (2, 3))
    given = seen(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)), torch.randn(2, 3, 4), y, 2)
    assert torch.equal(given[..., 5:], F.one_hot(y, 2).float())


def test_time_major_sequences():
    y = torch.tensor([1, 0])
    given = seen(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)), torch.randn(3, 2, 4), y, 2)
    assert torch.equal(given[..., 5:], F.one_hot(y, 2).float()[None].expand(3, 2, 2))


def test_images_get_channels_and_maps_are_resized():
    network = nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.Flatten(), nn.Linear(12, 1))
    x = torch.randn(2, 1, 5, 5)
    y = torch.tensor([1, 0])
    given = seen(network, x, y, 2)
    assert given.shape == (2, 5, 2, 2)
    assert torch.equal(given[:, 3:, 1, 0], F.one_hot(y, 2).float())
    maps = torch.zeros(2, 4, 4, dtype=torch.int64)
    maps[:, 2:] = 1
    given = seen(network, x, maps, 2)
    assert torch.equal(given[0, 4], torch.tensor([[0.0, 0.0], [1.0, 1.0]]))


def test_scopes_nest_hide_and_end_when_the_body_raises():
    a, b = torch.tensor([0]), torch.tensor([1])
    assert current_context() is None
    with pytest.raises(RuntimeError, match="body"), synthesizer_context(a):
        assert current_context().raw is not None
        with synthesizer_context(b):
            assert torch.equal(current_context().raw, b)
            with synthesizer_context(None):
                assert current_context() is None
        assert torch.equal(current_context().raw, a)
        raise RuntimeError("body")
    assert current_context() is None


def test_scopes_in_other_threads_do_not_meet():
    found, ready, go = {}, threading.Barrier(2), threading.Barrier(2)

    def work(i):
        with synthesizer_context(torch.tensor([i])):
            ready.wait(5)
            found[i] = current_context().raw.item()
            go.wait(5)

    with synthesizer_context(torch.tensor([7])):
        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert current_context().raw.item() == 7
    assert found == {0: 0, 1: 1}


def test_the_context_is_that_of_the_forward_pass():
    net = DNI(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1)), dni_network=Spy, context_size=2)
    with synthesizer_context(torch.tensor([0, 1])):
        loss = net(torch.randn(2, 4)).sum()
    with synthesizer_context(torch.tensor([1, 1])):
        loss.backward()
    assert torch.equal(Spy.seen[-1][:, 5:], torch.eye(2))


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (None, "needs a context of size 3"),
        (torch.tensor([0, 1, 3, 0]), "labels run from 0 to 3"),
        (torch.tensor([0, -1, 2, 0]), "labels run from -1"),
        (torch.randn(4, 2), "must be context_size=3"),
        (torch.tensor([0, 1, 2]), "does not fit an activation of shape"),
        (torch.randn(5, 3), "does not fit an activation of shape"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_misuse_is_one_clear_error_in_the_forward_pass(context, words, first):
    net = DNI(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), context_size=3)
    x = torch.randn(4, 4)
    if not first:
        with synthesizer_context(torch.tensor([0, 1, 2, 0])):
            net(x).sum().backward()
    with pytest.raises(ContextError, match=words), synthesizer_context(context):
        net(x)
    with synthesizer_context(torch.tensor([0, 1, 2, 0])):
        net(x).sum().backward()
    assert net.stats()["1"].updates == 2 - first


def test_a_context_nobody_asked_for():
    net = DNI(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)))
    with pytest.raises(ContextError, match="context_size"), synthesizer_context(torch.tensor([0])):
        net(torch.randn(1, 4))
    with pytest.raises(ContextError, match="list"), synthesizer_context([0, 1]):
        pass


def test_no_gradient_flows_into_a_context():
    c = torch.randn(3, 2, requires_grad=True)
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    net = DNI(network, dni_network=Linear_DNI, context_size=2)
    for _ in range(2):
        with synthesizer_context(c):
            net(torch.randn(3, 4)).sum().backward()
    assert c.grad is None


@pytest.mark.filterwarnings("ignore:None of the inputs")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("placed", [False, True])
def test_checkpointed_parts_run_again_in_the_context_of_their_forward_pass(reentrant, placed):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU())
            self.outer = nn.Linear(5, 3)

        def forward(self, x):
            return self.outer(checkpoint(self.inner, x, use_reentrant=reentrant))

    plain = Checkpointed()
    network = copy.deepcopy(plain)
    example = torch.randn(2, 4) if placed else None
    net = DNI(network, context_size=3, example_input=example)
    plain.forward = lambda x: plain.outer(plain.inner(x))
    other = DNI(plain, context_size=3, example_input=example)
    for labels in torch.tensor([[0, 1], [2, 1], [1, 0]]):
        x = torch.randn(2, 4, requires_grad=True)
        for one in (net, other):
            one.zero_grad()
            with synthesizer_context(labels):
                loss = one(x).square().sum()
            loss.backward()
        if placed:
            for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
                assert torch.equal(ours.grad, theirs.grad)
    assert all(stats.updates for stats in net.stats().values())
