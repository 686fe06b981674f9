"""Checkpoints: resumed training equals uninterrupted training."""

import pytest
from torch import nn

from pytorch_dni import CheckpointError, DNI, Feedback_DNI, Linear_DNI, LocalLoss_DNI, RNN_DNI
from tests.support.checkpoints import through_file
from tests.support.wrapped import assert_equal, classifier, Run

KINDS = {
    "regressed": {"dni_network": Linear_DNI},
    "recurrent": {"dni_network": RNN_DNI, "hidden_size": 5},
    "local": {"dni_network": LocalLoss_DNI},
    "local error": {},
    "named": {"dni_network": Linear_DNI, "layers": ["0", "3"], "grad_optim": "sgd"},
    "feedback": {"context_size": None},
    "gated": {"context_size": None, "dni_network": Feedback_DNI, "dni_params": {"gate": True}},
    "exact every": {"context_size": None, "exact_every": 3},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fresh", [True, False])
def test_resumed_training_equals_uninterrupted_training(kind, fresh):
    whole = Run(**KINDS[kind])
    whole.train(0, 30)
    first = Run(**KINDS[kind])
    first.train(0, 12)
    state = through_file({"net": first.net.state_dict(), "opt": first.opt.state_dict()})
    second = Run(**KINDS[kind])
    if not fresh:
        second.train(50, 53)
    second.net.load_state_dict(state["net"])
    second.opt.load_state_dict(state["opt"])
    assert list(second.net.interfaces) == list(first.net.interfaces)
    second.train(12, 30)
    assert_equal(whole.tensors(), second.tensors())
    assert whole.net.stats() == second.net.stats()


@pytest.mark.parametrize("kind", KINDS)
def test_the_networks_state_has_the_keys_of_the_bare_network(kind):
    run = Run(**KINDS[kind])
    keys = list(classifier().state_dict())
    run.train(0, 2)
    assert list(run.net.network.state_dict()) == keys
    classifier().load_state_dict(run.net.network.state_dict())
    saved = list(run.net.state_dict())
    assert saved[: len(keys)] == [f"network.{k}" for k in keys]
    assert all(key.startswith("_dni.") for key in saved[len(keys) :])


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrapper_may_be_saved_before_its_first_run(kind):
    state = through_file(Run(**KINDS[kind]).net.state_dict())
    run = Run(**KINDS[kind])
    run.train(0, 2)
    other = Run(**KINDS[kind])
    other.net.load_state_dict(state)
    other.train(0, 2)
    assert_equal(run.tensors(), other.tensors())


def test_bp_lambda_set_while_training_is_saved():
    run = Run()
    run.net.bp_lambda = 0.25
    other = Run()
    other.net.load_state_dict(through_file(run.net.state_dict()))
    assert other.net.bp_lambda == 0.25
    scheduled = Run(bp_lambda=lambda step: 1.0)
    scheduled.net.load_state_dict(through_file(run.net.state_dict()))
    assert callable(scheduled.net.bp_lambda)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ({"dni_network": Linear_DNI}, {"dni_network": Linear_DNI, "hidden_size": 16}),
        ({"dni_network": Linear_DNI}, {}),
        ({}, {"dni_network": LocalLoss_DNI}),
        ({}, {"grad_optim": "sgd"}),
        ({}, {"context_size": None}),
        ({"context_size": None}, {}),
        ({"context_size": None}, {"context_size": None, "unlock": "update"}),
        ({"context_size": None, "unlock": "update"}, {"context_size": None}),
    ],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(kind, options):
    run = Run(**kind)
    run.train(0, 3)
    state = through_file(run.net.state_dict())
    other = Run(**options)
    other.train(5, 8)
    before = [p.clone() for p in other.tensors()]
    stats = other.net.stats()
    with pytest.raises(CheckpointError, match="does not fit this wrapper"):
        other.net.load_state_dict(state)
    assert_equal(before, other.tensors())
    assert other.net.stats() == stats
    network = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3))
    with pytest.raises(CheckpointError, match="does not fit"):
        DNI(network, context_size=3).load_state_dict(state, strict=False)
