"""Attributes of the network can be read through the wrapper."""

import copy
import functools
import inspect
import types

import pytest
import torch
from torch import nn

from pytorch_dni import DNI
from tests.support.checkpoints import through_pickle
from tests.support.zoo import Recurrent


def test_attributes_of_the_network_are_found():
    network = Recurrent()
    network.vocabulary = 11
    net = DNI(network)
    assert net.vocabulary == 11
    assert net.head is network.head
    with pytest.raises(AttributeError, match="nonsense"):
        _ = net.nonsense


class Model(nn.Module):
    main_input_name = "x"

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        self.saved = []

    def forward(self, x, labels=None, *, scale: float = 1.0, **options):
        return self.body(x) * scale

    @property
    def width(self):
        return self.body[0].in_features

    def save_pretrained(self, path):
        self.saved.append(path)


def test_forward_has_the_signature_of_the_network():
    network = Model()
    expected = inspect.signature(network.forward)
    wrapped = DNI(network)
    for net in (wrapped, copy.deepcopy(wrapped), through_pickle(wrapped)):
        assert inspect.signature(net.forward) == expected
        assert "forward pass" in net.forward.__doc__
    assert list(inspect.signature(DNI.forward).parameters) == ["self", "args", "kwargs"]


def test_a_forward_that_a_tool_replaces_goes_on_working_and_can_be_copied():
    """Tools for mixed precision wrap the method, or its function, and bind it to the model."""
    torch.manual_seed(0)
    net = DNI(Model())
    x = torch.randn(5, 3)
    expected = net(x, scale=2.0)

    def doubled(function):
        @functools.wraps(function)
        def run(*args, **kwargs):
            return 2 * function(*args, **kwargs)

        return run

    net.forward = types.MethodType(doubled(net.forward.__func__), net)
    assert torch.equal(net(x), expected)
    assert "labels" in inspect.signature(net.forward).parameters
    clone = copy.deepcopy(net)
    assert torch.equal(clone(x), expected)
    with torch.no_grad():
        clone.network.body[0].weight.zero_()
    assert torch.equal(net(x), expected)
    assert not torch.equal(clone(x), expected)
    del net.forward
    assert torch.equal(net(x, scale=2.0), expected)


def test_properties_and_methods_of_the_network_work_through_the_wrapper():
    network = Model()
    net = DNI(network)
    net.save_pretrained("there")
    assert network.saved == ["there"]
    assert net.width == 3
    assert net.main_input_name == "x"
    assert hasattr(net, "width")
    assert not hasattr(net, "config")
    with pytest.raises(AttributeError, match="'Model' object has no attribute 'config'"):
        _ = net.config


def test_an_attribute_error_inside_a_property_of_the_wrapper_names_what_is_missing():
    class Own(DNI):
        @property
        def broken(self):
            return object().missing

    with pytest.raises(AttributeError, match="'object' object has no attribute 'missing'"):
        _ = Own(Model()).broken


def test_items_of_the_network_are_found():
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    net = DNI(network)
    assert net[0] is network[0]
    assert [*net[1:]] == [*network[1:]]
    assert len(net) == 3
    assert [*net] == [*network]
    assert network[1] in net
    assert nn.Tanh() not in net
    assert bool(net)
    with pytest.raises(IndexError):
        _ = net[3]


def test_a_network_without_items_has_none_through_the_wrapper():
    net = DNI(Model())
    assert bool(net)
    for ask in (len, iter, lambda net: net[0], lambda net: 1 in net):
        with pytest.raises(TypeError, match="Model"):
            ask(net)


def test_a_network_of_length_zero_is_still_there():
    class Empty(Model):
        def __len__(self):
            return 0

    net = DNI(Empty())
    assert len(net) == 0
    assert bool(net)
