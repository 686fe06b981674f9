"""``layers=``: the cuts that the user selects, and errors that list the modules."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, SelectionError
from tests.support.wrapped import blocks, cuts


def test_the_last_layer_is_skipped_unless_it_is_named():
    x = torch.randn(3, 4)
    assert cuts(blocks(), x, skip_last_layer=False) == ["0.1", "1.1", "2.1", "3"]
    assert cuts(blocks(), x, layers=nn.Linear) == ["0.0", "1.0", "2.0"]
    assert cuts(blocks(), x, layers=nn.Linear, skip_last_layer=False)[-1] == "3"
    # A last layer that is named is kept. A container that holds the last layer is skipped as well.
    assert cuts(blocks(), x, layers=["3", "0.0"]) == ["0.0", "3"]
    whole = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4)))
    assert cuts(whole, x, layers="*") == ["0"]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("1", ["1"]),
        ("1.0", ["1.0"]),
        ("*", ["0", "1", "2"]),
        ("*.0", ["0.0", "1.0", "2.0"]),
        ("**.1", ["0.1", "1.1", "2.1"]),
        ("[01].0", ["0.0", "1.0"]),
        (nn.ReLU, ["0.1", "1.1", "2.1"]),
        ([nn.ReLU, "0.0"], ["0.0", "0.1", "1.1", "2.1"]),
        (lambda name, module: name.startswith("1."), ["1.0", "1.1"]),
    ],
)
def test_layers_may_be_names_patterns_types_or_a_predicate(layers, expected):
    assert cuts(blocks(), torch.randn(3, 4), layers=layers) == expected


def test_layers_may_be_modules():
    network = blocks()
    assert cuts(network, torch.randn(3, 4), layers=[network[1], network[2][0]]) == ["1", "2.0"]


def test_two_modules_with_one_output_are_one_cut():
    assert cuts(blocks(), torch.randn(3, 4), layers=["0", "0.1"]) == ["0.1"]


def test_recursive_false_cuts_at_the_output_alone():
    net = DNI(blocks(), recursive=False)
    net(torch.randn(3, 4)).square().sum().backward()
    assert list(net.interfaces) == [""]
    assert net.stats()[""].updates == 1


@pytest.mark.parametrize("unlock", ["backward", "update"])
def test_a_module_that_runs_later_gets_its_cut_then(unlock):
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x, late=False):
            x = self.a(x)
            return self.head(self.b(x) if late else x)

    net = DNI(Sometimes(), layers=["a", "b"], unlock=unlock)
    net(torch.randn(3, 4)).sum().backward()
    assert list(net.interfaces) == ["a"]
    net(torch.randn(3, 4), late=True).sum().backward()
    assert list(net.interfaces) == ["a", "b"]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ("bolcks.*", ["'bolcks.*'", "'0.1' (ReLU)"]),
        ("9", ["'9'", "There is"]),
        (nn.Conv2d, ["Conv2d", "There is"]),
        (nn.Linear(2, 2), ["Linear", "not a module inside"]),
        (lambda name, module: False, ["predicate", "There is"]),
        ([], ["empty"]),
        (1, ["into how many parts"]),
        (True, ["bool"]),
        ([3], ["3"]),
    ],
)
def test_errors_name_what_is_not_found_and_list_what_there_is(layers, words):
    network = blocks()
    with pytest.raises(SelectionError) as error:
        DNI(network, layers=layers)
    for word in words:
        assert word in str(error.value)
    assert not any(m._forward_hooks for m in network.modules())


def test_nothing_to_cut_is_an_error():
    with pytest.raises(SelectionError, match="no place to cut"):
        DNI(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(SelectionError, match="no place to cut"):
        DNI(nn.LSTM(3, 3), recurrent=False)
    net = DNI(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), layers="0*")
    with pytest.raises(SelectionError, match="nothing is left to cut"):
        net(torch.randn(2, 3))
