"""Misuse of interfaces is one clear error and changes nothing."""

import copy
import warnings

import pytest
import torch
from torch import nn

from pytorch_dni import (
    BackwardInterface,
    BasicSynthesizer,
    BidirectionalInterface,
    CheckpointError,
    ContextError,
    DNI,
    DNI_Network,
    DNIError,
    Feedback_DNI,
    ForwardInterface,
    Linear_DNI,
    LocalError_DNI,
    LocalLoss_DNI,
    synthesizer_context,
    SynthesizerError,
)
from tests.support.checkpoints import assert_same_state
from tests.support.primitives import activation


@pytest.fixture
def both():
    """Return an interface, and check after the test that it has learned nothing."""
    cut = BidirectionalInterface(
        BasicSynthesizer(5, trigger_dim=3, context_dim=4),
        BasicSynthesizer(5, context_dim=4),
        name="middle",
    )
    before = copy.deepcopy(cut.state_dict())
    yield cut
    assert_same_state(before, cut.state_dict())
    for direction in ("forward_interface", "backward_interface"):
        assert before[f"{direction}._dni.learner.steps"] == 0
        assert before[f"{direction}._dni.moments.updates"] == 0


LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.mark.parametrize("call", ["forward", "send"])
def test_a_message_of_another_shape_is_an_error(both, call):
    with synthesizer_context(LABELS):
        for message in (activation(6, 4), activation(6, 5, 1)):
            with pytest.raises(SynthesizerError, match=r"middle.*(shape|features)"):
                getattr(both, call)(message, torch.randn(6, 3))
        with pytest.raises(SynthesizerError, match=r"\(6, 4\).*\(6, 5\)"):
            both.backward_interface.send(torch.randn(6, 4), torch.randn(6, 5))
        with pytest.raises(SynthesizerError, match=r"\(6, 5\).*\(6, 4\)"):
            both.forward_interface.send(torch.randn(6, 4), torch.randn(6, 3))


def test_a_message_of_another_batch_is_an_error(both):
    with synthesizer_context(LABELS):
        with pytest.raises(DNIError, match="6"):
            both.send(activation(4, 5), torch.randn(6, 3))
        with pytest.raises(DNIError, match="6"):
            both(activation(4, 5), torch.randn(6, 3))


def test_a_trigger_that_needs_no_gradient_is_an_error(both):
    h, x = torch.randn(6, 5), torch.randn(6, 3)
    with synthesizer_context(LABELS):
        for call in (
            lambda: both(h, x),
            lambda: both.send(h, x),
            lambda: both.backward_interface(h),
            lambda: both.backward_interface.backward(h),
        ):
            with pytest.raises(DNIError, match=r"middle.*needs no gradient"):
                call()


def test_backward_under_no_grad_is_an_error(both):
    with torch.no_grad():
        h = activation(6, 5)
    with synthesizer_context(LABELS), pytest.raises(DNIError, match=r"backward\(\).*no_grad"):
        both.backward_interface.backward(h)


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (torch.zeros(5, dtype=torch.int64), "6 samples"),
        (torch.zeros(6, 3), "context_size=4"),
        (torch.zeros(5, 4), "6 samples"),
        (torch.tensor([0, 1, 2, 3, 4, 0]), "0 to 3"),
        (torch.tensor([0, 1, 2, 3, -1, 0]), "0 to 3"),
        (None, "synthesizer_context"),
    ],
)
def test_contexts_that_do_not_fit_are_errors(both, context, words):
    h, x = activation(6, 5), torch.randn(6, 3)
    with synthesizer_context(context):
        for call in (
            lambda: both(h, x),
            lambda: both.send(h, x),
            lambda: both.receive(x),
            lambda: both.backward_interface.make_trigger(h),
            lambda: both.backward_interface.backward(h),
            lambda: both.forward_interface.receive(x),
        ):
            with pytest.raises(ContextError, match=f"middle.*{words}"):
                call()


def test_triggers_that_do_not_fit_are_errors(both):
    with synthesizer_context(LABELS):
        with pytest.raises(SynthesizerError, match="trigger_dim"):
            both.receive(torch.randn(6, 4))
        with pytest.raises(DNIError, match="floating-point"):
            both.receive(torch.zeros(6, 3, dtype=torch.int64))
        with pytest.raises(DNIError, match="middle"):
            both.backward_interface.receive(torch.randn(6, 6))
    alone = BackwardInterface(BasicSynthesizer(5))
    for call in (alone, alone.receive, alone.make_trigger):
        with pytest.raises(SynthesizerError, match="trigger_dim"):
            call(activation(6, 4))


def test_synthesizers_that_do_not_fit_are_errors():
    with pytest.raises(SynthesizerError, match="must be a module"):
        BackwardInterface(len)
    with pytest.raises(SynthesizerError, match="LocalLoss_DNI predicts gradients only"):
        ForwardInterface(LocalLoss_DNI(5, 5, 3))
    with pytest.raises(SynthesizerError, match="LocalLoss_DNI predicts gradients only"):
        BidirectionalInterface(LocalLoss_DNI(5, 5, 3), BasicSynthesizer(5))
    for kind in (Feedback_DNI((6, 5), (6, 3)), LocalError_DNI((6, 5), 3)):
        with pytest.raises(SynthesizerError, match=f"{type(kind).__name__} predicts gradients"):
            ForwardInterface(kind)
    with pytest.raises(SynthesizerError, match="grad_optim"):
        BackwardInterface(BasicSynthesizer(5), optim="adamm")

    class Old(nn.Module):
        def forward(self, input, hidden):
            return input, hidden

    with pytest.raises(SynthesizerError, match="derives from DNI_Network"):
        BackwardInterface(Old()).receive(torch.randn(2, 3))
    with pytest.raises(SynthesizerError, match="predicts shape"):
        BackwardInterface(Linear_DNI(5, 4, 6)).receive(torch.randn(2, 5))


class Error_DNI(DNI_Network):
    """Takes the error besides the activation."""

    features_last = takes_error = True

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.layer = nn.Linear(self.input_size, self.output_size)

    def forward(self, input, hidden):
        return self.layer(input), None


@pytest.mark.parametrize("make", [lambda: Feedback_DNI((6, 5), (6, 3)), lambda: Error_DNI(8, 4, 5)])
def test_a_synthesizer_that_takes_the_error_of_a_step_is_an_error_without_one(make):
    cut, h = BackwardInterface(make()), activation(6, 5)
    for call in (
        lambda: cut(h),
        lambda: cut.make_trigger(h),
        lambda: cut.receive(h),
        lambda: cut.send(h, h),
        lambda: cut.backward(h),
    ):
        with pytest.raises(SynthesizerError, match=r"takes the error.*unlock='backward'"):
            call()
    for options in ({"unlock": "update"}, {"unlock": "full"}, {"eager": True}):
        net = DNI(
            nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)),
            dni_network=lambda name, module, output: make(),
            **options,
        )
        with pytest.raises(SynthesizerError, match=r"'1': .* takes the error at the output"):
            net(torch.randn(6, 4)).sum().backward()


def test_send_teaches_nothing_where_the_backward_synthesizer_does_not_fit():
    cut = BidirectionalInterface(BasicSynthesizer(5, trigger_dim=3), Linear_DNI(5, 4, 6))
    with pytest.raises(SynthesizerError, match="predicts shape"):
        cut.send(activation(6, 5), torch.randn(6, 3))
    assert cut.forward_interface.stats().updates == 0


def test_errors_of_an_interface_without_a_name_state_its_types():
    with pytest.raises(DNIError, match="BackwardInterface with BasicSynthesizer"):
        BackwardInterface(BasicSynthesizer(5))(torch.randn(2, 5))


def test_a_state_with_another_optimizer_is_an_error():
    one, other = (BackwardInterface(BasicSynthesizer(5), optim=o) for o in ("adam", None))
    own = {k: v for k, v in one.state_dict().items() if k.startswith("_dni.")}
    synthesizer = {k: v for k, v in other.state_dict().items() if not k.startswith("_dni.")}
    state = {**synthesizer, **own}
    with pytest.raises(CheckpointError, match="optim"):
        other.load_state_dict(state)


def test_a_forward_interface_alone_warns_once_that_no_gradient_passes():
    earlier, cut = nn.Linear(4, 5), ForwardInterface(BasicSynthesizer(5, trigger_dim=4))
    x = torch.randn(6, 4)
    with pytest.warns(UserWarning, match="BidirectionalInterface"):
        cut(earlier(x), x).sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut(earlier(x), x).sum().backward()
    assert earlier.weight.grad is None
