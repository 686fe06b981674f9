"""Wrong arguments and repeated wrapping are errors."""

import warnings

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNIError, Feedback_DNI, LocalError_DNI
from tests.support.wrapped import blocks

FEEDBACK = {"dni_network": Feedback_DNI}


def test_wrong_arguments_and_repeated_wrapping_are_errors():
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
        ({"unlock": "forward"}, "unlock must be 'backward', 'update' or 'full'"),
        ({"unlock": "backward", "eager": True}, "leave eager out"),
        ({"unlock": "backward", "recursive": False}, "nothing is left to predict"),
        ({"unlock": "update", "dni_network": Feedback_DNI}, "the error that Feedback_DNI takes"),
        ({"eager": True, "dni_network": Feedback_DNI}, "leave eager out"),
        ({"dni_network": LocalError_DNI}, "context_size"),
        ({"exact_every": 0}, "exact_every"),
        ({"exact_every": 2.0}, "exact_every"),
        ({"exact_every": True}, "exact_every"),
        ({"exact_every": 2, "bp_lambda": 0.5}, "take one of the two"),
        ({"exact_every": 2, "eager": True}, "exact_every takes cuts in space alone"),
        ({"exact_every": 2, "unlock": "full"}, "exact_every takes cuts in space alone"),
        ({"exact_every": 2, "update_probability": 0.5}, "exact_every takes cuts in space alone"),
        ({"example_input": torch.randn(2, 4), **FEEDBACK, "context_size": 3}, "context_size"),
    ]:
        with pytest.raises(DNIError, match=words):
            DNI(network, **arguments)
    with pytest.raises(DNIError, match="exact_every takes cuts in space alone"):
        DNI(nn.LSTM(3, 4), exact_every=2)
    net = DNI(network, exact_every=2)
    with pytest.raises(DNIError, match="take one of the two"):
        net.bp_lambda = 0.5
    net.unwrap()
    net = DNI(network, exact_every=lambda step: 0)
    with pytest.raises(DNIError, match="exact_every"):
        net(torch.randn(2, 4)).sum().backward()
        net(torch.randn(2, 4))
    net.unwrap()
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


def test_a_warning_names_parameters_that_the_optimizer_lacks():
    network = blocks()
    first, *others = network.parameters()
    for parameter in others[-2:]:
        parameter.requires_grad_(False)
    given = torch.optim.SGD([first], lr=0.1)
    names = [name for name, p in network.named_parameters() if p.requires_grad][1:]
    with pytest.warns(UserWarning, match="does not train these parameters") as warned:
        DNI(network, given)
    message = str(warned[0].message)
    assert warned[0].filename == __file__
    assert all(name in message for name in names[:5])
    assert len(names) <= 5 or f"and {len(names) - 5} more" in message
    network = blocks()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DNI(network, torch.optim.SGD(network.parameters(), lr=0.1)).unwrap()
        DNI(network)
