"""A loss on a tensor from inside the network works, or an error names the cut."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pytorch_dni import DNI, DNIError

EAGER = {"eager": True}
EXACT = {"exact_every": 2, "unlock": "update"}


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4)
    )


def wrapped(inside, options):
    """Return a wrapped network, and what a hook of the module of that name has stored."""
    bare, stored = network(), {}
    net = DNI(bare, layers=["1", "3"], example_input=torch.randn(2, 12), **options)
    hook = lambda module, args, output: stored.update(h=output)  # noqa: E731
    bare.get_submodule(inside).register_forward_hook(hook)
    return net, stored


def output_loss(net):
    return F.cross_entropy(net(torch.randn(8, 12)), torch.arange(8) % 4)


@pytest.mark.parametrize(("inside", "cut"), [("0", "1"), ("1", "1"), ("2", "3")])
@pytest.mark.parametrize("alone", [False, True])
def test_eager_learning_names_the_cut_of_the_part(inside, cut, alone):
    net, stored = wrapped(inside, EAGER)
    loss = output_loss(net)
    inner = stored["h"].square().mean()
    with pytest.raises(DNIError, match=rf"a tensor from inside .*at the cut '{cut}'"):
        (inner if alone else loss + inner).backward()


def test_a_loss_inside_is_an_error_in_later_steps_too():
    """It is PyTorch's own then: hooks for a better message cost time in each step."""
    net, stored = wrapped("2", EAGER)
    output_loss(net).backward()
    output_loss(net)
    with pytest.raises(RuntimeError, match="second time"):
        stored["h"].square().mean().backward()


def test_eager_learning_takes_a_loss_inside_of_the_last_part():
    grads = []
    for options in ({"unlock": "update"}, EAGER):
        net, stored = wrapped("3", options)
        torch.manual_seed(1)
        for _ in range(3):
            net.zero_grad()
            loss = output_loss(net)
            (loss + stored["h"].square().mean()).backward()
        grads.append([p.grad for p in net.parameters()])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_eager_learning_refuses_a_loss_inside_of_the_last_part_alone():
    net, stored = wrapped("3", EAGER)
    output_loss(net)
    with pytest.raises(DNIError, match=r"reached the cut '3', but no tensor .*\(Tensor\)"):
        stored["h"].square().mean().backward()


def test_features_may_be_kept_and_read():
    net, stored = wrapped("2", EAGER)
    output_loss(net).backward()
    assert stored["h"].detach().norm() > 0


def test_an_inner_loss_beside_that_of_the_output_reaches_its_part_with_exact_every():
    net, stored = wrapped("2", EXACT)
    output_loss(net).backward()
    net.zero_grad()
    torch.manual_seed(1)
    output_loss(net).backward()  # not exact
    without = net.network[2].weight.grad.clone()
    output_loss(net).backward()
    net.zero_grad()
    torch.manual_seed(1)
    loss = output_loss(net)
    (loss + 1000 * stored["h"].square().mean()).backward()
    assert all(p.grad is not None for p in net.parameters())
    assert (net.network[2].weight.grad - without).abs().max() > 1


def test_an_inner_loss_alone_is_an_error_in_the_first_step_that_is_not_exact():
    net, stored = wrapped("2", EXACT)
    output_loss(net).backward()
    output_loss(net)
    with pytest.raises(DNIError, match=r"exact_every: a backward pass reached the cut '1'"):
        stored["h"].square().mean().backward()


class Block(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.linear, self.reentrant = nn.Linear(16, 16), reentrant

    def forward(self, x):
        return checkpoint(self.run, x, use_reentrant=self.reentrant)

    def run(self, x):
        return torch.tanh(self.linear(x))


def blocks(reentrant):
    torch.manual_seed(0)
    inner = [Block(reentrant) for _ in range(2)]
    return nn.Sequential(nn.Linear(12, 16), *inner, nn.Linear(16, 4))


@pytest.mark.parametrize("options", [EAGER, EXACT, {"exact_every": 2}], ids=str)
def test_a_reentrant_checkpoint_in_a_part_is_an_error_with_its_remedy(options):
    net = DNI(blocks(True), layers=["1", "2"], **options)
    with pytest.raises(DNIError, match=r"the part that ends at the cut .* use_reentrant=False"):
        for _ in range(2):
            output_loss(net).backward()
    net = DNI(blocks(False), layers=["1", "2"], **options)
    for _ in range(3):
        net.zero_grad()
        output_loss(net).backward()
        assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_a_reentrant_checkpoint_works_by_default(unlock):
    nets = [DNI(blocks(r), layers=["1", "2"], unlock=unlock) for r in (True, False)]
    for net in nets:
        torch.manual_seed(1)
        for _ in range(3):
            net.zero_grad()
            output_loss(net).backward()
    for ours, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("options", [EAGER, EXACT], ids=str)
@pytest.mark.parametrize("inside", [False, True])
def test_a_full_backward_hook_that_would_not_be_called_is_an_error(inside, options):
    bare = nn.Sequential(network(), nn.Linear(4, 4))
    net = DNI(bare, layers=["0.1", "0.3"], **options)
    hooked = bare[0] if inside else bare[0][1]
    handle = hooked.register_full_backward_hook(lambda *call: None)
    words = r"'0' \(Sequential\)" if inside else r"'0\.1' \(Tanh\)"
    with pytest.raises(DNIError, match=f"{words} has a full backward hook"):
        for _ in range(2):
            output_loss(net).backward()
    handle.remove()
    calls = []
    bare[0][2].register_full_backward_hook(lambda *call: calls.append(call[2][0].norm()))
    for _ in range(4):
        output_loss(net).backward()
    assert len(calls) == 4
