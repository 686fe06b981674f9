"""Where the cuts go: what is asked for, what is found, and errors that list what there is."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNIError, SelectionError
from tests.support.zoo import Branches, Functional, Recurrent, Residual, Shared, ZOO


def cuts(network, x, **options):
    net = DNI(network, **options)
    out = net(x)
    out = sum(o.sum() for o in out.values()) if isinstance(out, dict) else out.sum()
    out.backward()
    names = list(net.interfaces)
    net.unwrap()
    return names


def blocks():
    block = [nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3)]
    return nn.Sequential(*block, nn.Linear(4, 2))


def test_layers_none_cuts_behind_the_activation_that_follows():
    network = nn.Sequential(
        nn.Linear(4, 4),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(4, 4),
        nn.Linear(4, 2),
    )
    assert cuts(network, torch.randn(3, 4)) == ["3", "4"]
    flat = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)
    )
    assert cuts(flat, torch.randn(3, 1, 6, 6)) == ["2"]


def test_layers_none_stays_at_the_layer_where_no_module_follows_directly():
    assert cuts(Functional(), torch.randn(3, 6)) == ["first", "second"]
    # A norm without an activation behind it, an addition, an activation module used twice.
    assert cuts(Residual(), torch.randn(3, 2, 6, 6)) == ["stem", "conv1", "conv2"]


def test_layers_none_with_shared_idle_and_recurrent_modules():
    assert cuts(Shared(), torch.randn(3, 6)) == ["stem", "loop"]
    assert cuts(Branches(), torch.randn(3, 6)) == ["body.1", "left"]
    assert cuts(Recurrent(), ZOO["lstm"].input(), recurrent=False) == ["embedding"]


def test_a_layer_called_twice_is_cut_at_itself():
    shared = nn.Linear(4, 4)
    network = nn.Sequential(nn.Linear(4, 4), shared, nn.ReLU(), shared, nn.Tanh(), nn.Linear(4, 2))
    assert cuts(network, torch.randn(3, 4)) == ["0", "1"]


def test_skip_last_layer():
    x = torch.randn(3, 4)
    assert cuts(blocks(), x, skip_last_layer=False) == ["0.1", "1.1", "2.1", "3"]
    assert cuts(blocks(), x, layers=nn.Linear) == ["0.0", "1.0", "2.0"]
    assert cuts(blocks(), x, layers=nn.Linear, skip_last_layer=False)[-1] == "3"
    # Named, it stays; a container that holds it is left out like it.
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
def test_ways_to_ask(layers, expected):
    assert cuts(blocks(), torch.randn(3, 4), layers=layers) == expected


def test_modules_themselves():
    network = blocks()
    assert cuts(network, torch.randn(3, 4), layers=[network[1], network[2][0]]) == ["1", "2.0"]


def test_two_modules_with_one_output_are_one_cut():
    assert cuts(blocks(), torch.randn(3, 4), layers=["0", "0.1"]) == ["0.1"]


def test_the_whole_network_as_one_part():
    net = DNI(blocks(), recursive=False)
    net(torch.randn(3, 4)).square().sum().backward()
    assert list(net.interfaces) == [""]
    assert net.stats()[""].updates == 1


def test_modules_that_join_later():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x, late=False):
            x = self.a(x)
            return self.head(self.b(x) if late else x)

    net = DNI(Sometimes(), layers=["a", "b"])
    net(torch.randn(3, 4)).sum().backward()
    assert list(net.interfaces) == ["a"]
    net(torch.randn(3, 4), late=True).sum().backward()
    assert list(net.interfaces) == ["a", "b"]


def test_calling_parts_of_the_network_by_hand():
    net = DNI(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)))
    hidden = net.network[1](net.network[0](torch.randn(3, 4)))
    net.network[2](hidden).sum().backward()
    assert net.stats()["1"].updates == 1


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
def test_what_is_not_found_is_named_and_what_there_is_listed(layers, words):
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


def test_wrong_arguments():
    network = blocks()
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    for arguments, words in [
        ({"optim": other}, "holds no parameter of the network"),
        ({"optim": "adam"}, "optim must be"),
        ({"recursive": False, "layers": "0"}, "exclude each other"),
        ({"recursive": False, "example_input": torch.randn(2, 4)}, "example_input"),
        ({"bp_lambda": 2}, "bp_lambda"),
        ({"grad_optim": "adma"}, "adamw"),
        ({"grad_optim": 3}, "grad_optim"),
        ({"grad_lr": -1.0}, "grad_lr"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"context_size": 2.5}, "context_size"),
        ({"dni_network": 3}, "dni_network"),
        ({"dni_params": {"norm": None}}, "dni_network"),
    ]:
        with pytest.raises(DNIError, match=words):
            DNI(network, **arguments)
    with pytest.raises(DNIError, match="must be a module"):
        DNI(lambda x: x)
    net = DNI(network)
    with pytest.raises(DNIError, match="wrapped in DNI already"):
        DNI(network)
    with pytest.raises(DNIError, match="wrapped in DNI already"):
        DNI(net)
    net(torch.randn(2, 4)).sum().backward()
    with pytest.raises(DNIError, match="wrapped in DNI already"):
        DNI(network)
    with pytest.raises(DNIError, match="wrapped in DNI already"):
        DNI(nn.Sequential(net, nn.Linear(2, 2)))
