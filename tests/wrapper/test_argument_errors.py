"""Wrong arguments and repeated wrapping are errors."""

import pytest
import torch
from torch import nn

from pytorch_dni import DNI, DNIError
from tests.support.wrapped import blocks


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
