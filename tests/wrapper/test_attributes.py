"""Attributes of the network can be read through the wrapper."""

import pytest

from pytorch_dni import DNI
from tests.support.zoo import Recurrent


def test_attributes_of_the_network_are_found():
    network = Recurrent()
    network.vocabulary = 11
    net = DNI(network)
    assert net.vocabulary == 11
    assert net.head is network.head
    with pytest.raises(AttributeError, match="nonsense"):
        _ = net.nonsense
