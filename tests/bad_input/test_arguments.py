"""Arguments of a wrong type or value: every public callable refuses them with a clear error."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import pytorch_dni
from pytorch_dni import (
    backward,
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    Conv2d_DNI,
    Critic_DNI,
    CriticInterface,
    DNI,
    DNI_Network,
    DNIError,
    Feedback_DNI,
    ForwardInterface,
    FutureGradient,
    Linear_DNI,
    Linear_Sigmoid_DNI,
    LocalError_DNI,
    LocalLoss_DNI,
    OutputError,
    RNN_DNI,
    StateSpec,
    synthesizer_context,
    TemporalInterface,
    UnidirectionalInterface,
)

BAD = [
    3,
    -1,
    0,
    2.5,
    math.nan,
    -math.inf,
    True,
    "text",
    b"bytes",
    [],
    [1, 2],
    (),
    {},
    {"a": 1},
    set(),
    object(),
    torch.tensor(1.0),
    torch.randn(2, 3),
    torch.randn(0),
    torch.tensor([1, 2]),
    torch.zeros(3, 4, dtype=torch.complex64),
    torch.zeros(3, 4).to_sparse(),
    nn.Linear(2, 2),
    nn.Linear,
    None,
]
SIZES = {"input_size": 4, "hidden_size": 5, "output_size": 4}
MADE = {
    DNI_Network: SIZES,
    Linear_DNI: {**SIZES, "num_layers": 1, "norm": "batch", "takes_error": False},
    Linear_Sigmoid_DNI: SIZES,
    RNN_DNI: {**SIZES, "num_layers": 1, "cell": "lstm", "batch_first": True, "takes_error": False},
    Conv2d_DNI: {**SIZES, "num_layers": 1, "kernel_size": 3, "norm": "batch"},
    Critic_DNI: {**SIZES, "num_layers": 1, "norm": None, "horizon": 3, "discount": 0.9},
    LocalLoss_DNI: {**SIZES, "loss": F.mse_loss, "num_layers": 1, "norm": None, "pool": 4},
    LocalError_DNI: {"shape": (3, 4), "context_size": 3, "loss": F.mse_loss, "gate": False},
    Feedback_DNI: {"shape": (3, 4), "error_shape": (3, 2), "gate": False, "max_parameters": 9},
    BasicSynthesizer: {"output_dim": 4, "n_hidden": 1, "trigger_dim": 4, "context_dim": 2},
    StateSpec: {"argument": 1, "keyword": "hx", "result": 1, "batch_dim": 0},
    FutureGradient: {"factor": 0.1, "bound": 1.0, "probe": 4, "guard": True, "target": "returns"},
}
OPTIONS = ["optim", "lr", "context_size", "feature_dim", "name", "like"]
INTERFACES = {
    BackwardInterface: ([lambda: Linear_DNI(4, 5, 4)], OPTIONS),
    ForwardInterface: ([lambda: BasicSynthesizer(4)], OPTIONS),
    BidirectionalInterface: ([lambda: BasicSynthesizer(4)] * 2, ["optim", "lr"]),
    TemporalInterface: ([lambda: Linear_DNI(4, 5, 4)], [*OPTIONS, "future", "batch_dim"]),
    CriticInterface: ([lambda: Critic_DNI(4, 5, 4)], ["optim", "lr", "batch_dim"]),
}
# Arguments that hold a user's own function, network or input: their errors are the user's.
OWN = {"example_input", "forward_network"}
WRAPPER = [
    name
    for name in DNI.__init__.__annotations__
    if name not in ("return", "network") and name not in OWN
]
few = settings(max_examples=8, deadline=None, derandomize=True)


def works_or_is_refused(call):
    """Call, and accept an error of the library alone, with words."""
    refused = None
    try:
        call()
    except DNIError as error:
        refused = error
    assert refused is None or len(str(refused)) > 20


def is_function(value):
    return isinstance(value, (nn.Module, type))


def activation(*shape):
    return torch.randn(*shape, requires_grad=True) * 1


def network():
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


@pytest.mark.parametrize("name", WRAPPER)
@few
@given(value=st.sampled_from(BAD))
def test_the_wrapper(name, value):
    if name in ("bp_lambda", "exact_every") and is_function(value):
        return
    bare = network()
    before = [p.clone() for p in bare.parameters()]

    def use():
        net = DNI(bare, **{name: value})
        for _ in range(2):
            net(torch.randn(6, 4)).sum().backward()
        net.describe()
        net.state_dict()
        net.unwrap()

    works_or_is_refused(use)
    for a, b in zip(before, bare.parameters(), strict=True):
        assert torch.equal(a, b)


@few
@given(value=st.sampled_from(BAD))
def test_methods_of_the_wrapper(value):
    if is_function(value):
        return
    nets = DNI(network()), DNI(nn.LSTM(3, 4), dni_network=Critic_DNI)
    nets[0](torch.randn(6, 4)).sum().backward()
    nets[1](torch.randn(2, 5, 3))
    for net in nets:
        works_or_is_refused(lambda net=net: net.stats(value))
        works_or_is_refused(lambda net=net: net.audit(value))
        works_or_is_refused(lambda net=net: net.audit(lambda network: value))
        works_or_is_refused(lambda net=net: net.end_of_sequence(value))
        works_or_is_refused(lambda net=net: net.observe(value))
        works_or_is_refused(lambda net=net: setattr(net, "bp_lambda", value))


@pytest.mark.parametrize("name", ["bp_lambda", "exact_every"])
@few
@given(value=st.sampled_from(BAD))
def test_what_functions_of_the_step_return(name, value):
    net = DNI(network(), **{name: lambda step: value})

    def use():
        for _ in range(2):
            net(torch.randn(6, 4)).sum().backward()

    works_or_is_refused(use)


@pytest.mark.parametrize("kind", MADE)
@few
@given(data=st.data())
def test_synthesizers_and_settings(kind, data):
    name = data.draw(st.sampled_from(sorted(MADE[kind])))
    value = data.draw(st.sampled_from(BAD))
    kind(**MADE[kind])
    works_or_is_refused(lambda: kind(**{**MADE[kind], name: value}))


@pytest.mark.parametrize("kind", INTERFACES)
@few
@given(data=st.data())
def test_interfaces(kind, data):
    build, options = INTERFACES[kind]
    name, value = data.draw(st.sampled_from(options)), data.draw(st.sampled_from(BAD))
    one, other = activation(3, 4), activation(3, 4)

    def use(interface, given):
        if kind in (ForwardInterface, BidirectionalInterface):
            interface(given, other)
            interface(other, given)
            interface.send(given, other)
            interface.send(other, given)
        elif kind in (TemporalInterface, CriticInterface):
            state = interface.make_trigger(given)
            interface.backward(state)
            interface.forward(given)
        else:
            interface(given).sum().backward()
            interface.make_trigger(given)
            interface.send(given, other)

    def made(**options):
        return kind(*[make() for make in build], **options)

    works_or_is_refused(lambda: use(made(**{name: value}), one))
    works_or_is_refused(lambda: use(made(), value))
    works_or_is_refused(lambda: made().receive(value))
    works_or_is_refused(lambda: kind(*[value for _ in build]))


@few
@given(value=st.sampled_from(BAD))
def test_functions(value):
    def context():
        with synthesizer_context(value):
            pass

    works_or_is_refused(context)
    works_or_is_refused(lambda: backward(value))
    works_or_is_refused(lambda: backward(activation(3), value))
    works_or_is_refused(lambda: OutputError().watch(value))
    works_or_is_refused(lambda: OutputError().watch(activation(3, 4), value))
    works_or_is_refused(lambda: BackwardInterface(Linear_DNI(4, 5, 4))(activation(3, 4), value))
    works_or_is_refused(
        lambda: BackwardInterface(Linear_DNI(4, 5, 4)).backward(activation(3, 4), value)
    )


@few
@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    dtype=st.sampled_from([torch.float64, torch.int64, torch.bool, torch.float16]),
)
def test_shapes_and_types_of_triggers(shape, dtype):
    for kind, (build, _) in INTERFACES.items():
        interface = kind(*[make() for make in build])
        tensor = torch.zeros(shape, dtype=dtype)
        if dtype.is_floating_point:
            tensor = tensor.requires_grad_() * 1
        call = interface.make_trigger if hasattr(interface, "make_trigger") else None
        works_or_is_refused(lambda call=call, tensor=tensor: call and call(tensor))
        works_or_is_refused(lambda i=interface, tensor=tensor: i.receive(tensor))


def test_all_public_names_are_tried():
    tried = {*MADE, *INTERFACES, DNI, UnidirectionalInterface, OutputError}
    tried |= {synthesizer_context, backward, pytorch_dni.defer_backward}
    for name in pytorch_dni.__all__:
        public = getattr(pytorch_dni, name)
        is_error = isinstance(public, type) and issubclass(public, DNIError)
        is_result = isinstance(public, type) and issubclass(public, tuple)
        assert is_error or is_result or public in tried, name
