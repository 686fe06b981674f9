"""A corrupt checkpoint is refused by one error, and nothing has changed."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import CheckpointError, DNI, Linear_DNI, SynthesizerError
from tests.support.recurrent_zoo import data, Sequence
from tests.support.wrapped import assert_equal, Run


def paths(value, path=()):
    """Return the path of every entry in a tree of dicts and lists; tuples are taken whole."""
    found = [path] if path else []
    children = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    return found + [p for key, child in children for p in paths(child, (*path, key))]


def replaced(state, path, value):
    """Return a copy of a state with another value at a path."""
    state = copy.deepcopy(state)
    *before, last = path
    place = state
    for key in before:
        place = place[key]
    place[last] = value
    return state


def windows():
    torch.manual_seed(0)
    net = DNI(Sequence(nn.GRU).double())
    state = None
    for x, y in data(windows=3):
        out, state = net(x, state)
        (out - y).square().mean().backward()
    return net


def in_space(**options):
    run = Run(**options)
    run.train(0, 3)
    return run.net


def update_unlock():
    return in_space(dni_network=Linear_DNI)


def feedback():
    return in_space(context_size=None)


def tensors(net):
    return [p.clone() for i in net.interfaces.values() for p in i.parameters()]


@pytest.mark.parametrize("make", [in_space, update_unlock, feedback, windows])
@pytest.mark.parametrize("value", [None, "nonsense", -1, [object()]])
def test_every_entry_replaced_by_nonsense_is_an_error_or_loads(make, value):
    """A wrong value is refused; one that the library does not use may load."""
    net, saved = make(), make().get_extra_state()
    refused = 0
    for path in paths(saved):
        before, stats = tensors(net), net.stats()
        try:
            net.set_extra_state(replaced(saved, path, value))
        except CheckpointError:
            refused += 1
            assert_equal(before, tensors(net))
            assert net.stats() == stats
        else:
            net.set_extra_state(saved)
    assert refused > 20


@pytest.mark.parametrize("dtype", ["nonsense", "nn", "Tensor", "", 3, None])
def test_a_corrupt_tensor_type_is_a_checkpoint_error(dtype):
    net = in_space()
    state = net.get_extra_state()
    name = next(iter(state["cuts"]["interfaces"]))
    path = ("cuts", "interfaces", name, "spec", 1)
    with pytest.raises(CheckpointError, match="tensor type"):
        net.set_extra_state(replaced(state, path, dtype))


@pytest.mark.parametrize("found", [None, 0, 2, "1"])
def test_a_checkpoint_of_another_format_is_refused(found):
    net = in_space()
    with pytest.raises(CheckpointError, match="format"):
        net.set_extra_state({**net.get_extra_state(), "format": found})
    with pytest.raises(CheckpointError, match="format"):
        net.set_extra_state(found)


def test_a_defect_of_a_synthesizer_is_not_reported_as_a_wrong_checkpoint():
    class Broken(Linear_DNI):
        built = 0

        def __init__(self, *sizes):
            super().__init__(*sizes)
            Broken.built += 1
            if Broken.built > 1:
                raise RuntimeError("a defect")

    net = DNI(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)), dni_network=Broken)
    net(torch.randn(2, 3)).sum().backward()
    with pytest.raises(SynthesizerError, match=r"Broken for '1'.*RuntimeError: a defect"):
        net.load_state_dict(net.state_dict())
