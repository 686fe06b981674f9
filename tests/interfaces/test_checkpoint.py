"""Checkpoints and copies of interfaces."""

import copy

import pytest
import torch

from pytorch_dni import BasicSynthesizer, BidirectionalInterface, RNN_DNI
from tests.support.checkpoints import through_file, through_pickle
from tests.support.wrapped import assert_equal


def synthesizers(cut):
    return cut.forward_interface.synthesizer, cut.backward_interface.synthesizer


def learn(cut, steps, seed, user_trains):
    """Train on random activations; return the synthetic gradient of each step."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(cut.parameters(), lr=0.1) if user_trains else None
    grads = []
    for _ in range(steps):
        h = torch.randn(6, 5, generator=generator, requires_grad=True)
        x = torch.randn(6, 3, generator=generator)
        cut(h, x).square().sum().backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        grads.append(h.grad)
    return grads


@pytest.mark.parametrize("optim", ["adam", None])
@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle"])
def test_copies_and_loaded_interfaces_train_like_the_original(how, optim):
    def make():
        return BidirectionalInterface(
            BasicSynthesizer(5, 1, trigger_dim=3), RNN_DNI(5, 7, 5), optim=optim
        )

    cut = make()
    learn(cut, 3, 1, optim is None)
    if how == "state_dict":
        other = make()
        other.load_state_dict(through_file(cut.state_dict()))
    else:
        other = copy.deepcopy(cut) if how == "deepcopy" else through_pickle(cut)
    before = copy.deepcopy(synthesizers(cut))
    found, expected = (learn(one, 3, 2, optim is None) for one in (other, cut))
    assert all(grad.any() for grad in expected)
    assert_equal(found, expected)
    for start, ours, theirs in zip(before, synthesizers(other), synthesizers(cut), strict=True):
        assert_equal([*ours.parameters()], [*theirs.parameters()])
        changed = zip(start.parameters(), theirs.parameters(), strict=True)
        assert all(not torch.equal(old, new) for old, new in changed)
    assert cut.stats() == other.stats()
    assert cut.forward_interface.stats() == other.forward_interface.stats()
