"""Checkpoints and copies of interfaces."""

import copy

import pytest
import torch

from pytorch_dni import BasicSynthesizer, BidirectionalInterface, RNN_DNI
from tests.support.checkpoints import through_file, through_pickle


def learn(cut, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        h = torch.randn(6, 5, generator=generator, requires_grad=True)
        x = torch.randn(6, 3, generator=generator)
        cut(h, x).square().sum().backward()
    return h.grad


@pytest.mark.parametrize("optim", ["adam", None])
@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle"])
def test_copies_and_loaded_interfaces_train_like_the_original(how, optim):
    def make():
        return BidirectionalInterface(
            BasicSynthesizer(5, 1, trigger_dim=3), RNN_DNI(5, 7, 5), optim=optim
        )

    cut = make()
    learn(cut, 3, 1)
    if how == "state_dict":
        other = make()
        other.load_state_dict(through_file(cut.state_dict()))
    else:
        other = copy.deepcopy(cut) if how == "deepcopy" else through_pickle(cut)
    if optim is None:
        for one in (cut, other):
            one.zero_grad()
    assert torch.equal(learn(cut, 3, 2), learn(other, 3, 2))
    assert cut.stats() == other.stats()
