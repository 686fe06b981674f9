"""Cutting networks into parts that together are the network."""

import copy

import pytest
import torch
from torch import nn

from pytorch_dni import DNIError, SelectionError
from pytorch_dni.distributed import split


def sequence():
    torch.manual_seed(0)
    layers = [nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.3)) for _ in range(3)
        )
        self.last = nn.Linear(8, 2)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x) * self.scale


class Skips(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        first = self.a(x)
        return self.c(self.b(first)) + first


def whole_state(parts):
    state = {}
    for part in parts:
        assert not state.keys() & part.state_dict().keys()
        state.update(part.state_dict(keep_vars=True))
    return state


@pytest.mark.parametrize("parts", [1, 2, 3, 8, ["3"], ["3", "5"]])
@pytest.mark.parametrize("with_example", [True, False])
def test_a_sequence_is_cut_into_its_own_modules(parts, with_example):
    network, x = sequence(), torch.randn(5, 4)
    found = split(network, parts, x if with_example else None)
    assert len(found) == (parts if isinstance(parts, int) else len(parts) + 1)
    state = whole_state(found)
    assert state.keys() == network.state_dict().keys()
    assert all(state[name] is value for name, value in network.state_dict(keep_vars=True).items())
    value = x
    for part in found:
        value = part(value)
    assert torch.equal(value, copy.deepcopy(network)(x))


def test_parts_have_about_equal_costs_and_begin_at_layers():
    names = [[*dict(part.named_children())] for part in split(sequence(), 3)]
    assert names == [["0", "1", "2", "3", "4"], ["5", "6"], ["7"]] or names == [
        ["0", "1", "2"],
        ["3", "4"],
        ["5", "6", "7"],
    ]


def test_a_general_network_is_cut_in_training_and_evaluation():
    torch.manual_seed(1)
    network, x = Residual(), torch.randn(6, 4)
    before = copy.deepcopy(network.state_dict())
    parts = split(network, ["blocks.1", "last"], x)
    assert len(parts) == 3
    state = whole_state(parts)
    assert state.keys() == network.state_dict().keys()
    for name, value in network.state_dict(keep_vars=True).items():
        assert state[name] is value
        assert torch.equal(value, before[name])
    for mode in (True, False):
        for rows in (6, 3):
            bare = copy.deepcopy(network).train(mode)
            torch.manual_seed(2)
            expected = bare(x[:rows])
            torch.manual_seed(2)
            value = x[:rows]
            for part in parts:
                value = part.train(mode)(value)
            torch.testing.assert_close(value, expected)
            network.load_state_dict(before)
    value = x
    for part in parts:
        value = part(value)
    value.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    # Statistics are those of the network, and moved parts keep their buffers.
    part = parts[0].train()
    part.double()
    part(x.double())
    mean = dict(part.named_buffers())["blocks.0.1.running_mean"]
    assert mean.dtype == torch.float64
    assert mean.any()


def test_a_skip_connection_is_refused_by_name():
    with pytest.raises(DNIError, match="the output of 'a' in part 0 goes to part 2"):
        split(Skips(), ["b", "c"], torch.randn(6, 4))


def test_a_parameter_of_two_parts_is_refused_by_name():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return torch.relu(self.b(self.a(x))) @ self.a.weight

    with pytest.raises(DNIError, match=r"'a\.weight'"):
        split(Shared(), ["b"], torch.randn(6, 4))


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        ((sequence(), 9), DNIError, "9 parts of 8 modules"),
        ((sequence(), ["x"]), SelectionError, "no module 'x'"),
        ((sequence(), ["5", "3"]), DNIError, "in order"),
        ((Residual(), 2), DNIError, "name the modules"),
        ((Residual(), ["last"]), DNIError, "needs an example"),
        ((Residual(), ["other"], torch.randn(6, 4)), SelectionError, "no module 'other'"),
    ],
)
def test_what_cannot_be_cut_is_an_error(arguments, error, reason):
    with pytest.raises(error, match=reason):
        split(*arguments)


def test_a_network_that_cannot_be_traced_is_an_error_with_a_remedy():
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.b(x) if self.a(x).sum().item() > 0 else x

    with pytest.raises(DNIError, match="Make the parts by hand"):
        split(Dynamic(), ["b"], torch.randn(6, 4))


def test_an_input_of_the_network_that_a_later_part_takes_is_refused_by_name():
    class TakesInput(Skips):
        def forward(self, image):
            return self.c(self.b(self.a(image)) + image)

    with pytest.raises(DNIError, match="input 'image' of the network goes to part 1"):
        split(TakesInput(), ["b"], torch.randn(6, 4))
